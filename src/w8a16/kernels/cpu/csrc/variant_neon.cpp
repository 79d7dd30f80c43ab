// NEON: every 64-bit ARM processor.

#include "processor.h"

#if defined(W8A16_ARM64)

#include "vector_neon.h"

#include "variant.h"

namespace w8a16 {
extern const Variant variant_neon;
const Variant variant_neon = variant("neon", 33);  // 33: as measured for AVX2
}  // namespace w8a16

#endif
