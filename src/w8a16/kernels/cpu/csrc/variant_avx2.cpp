// AVX2 + FMA + F16C + PCLMULQDQ: x86-64 processors since 2013.

#include "processor.h"

#if defined(W8A16_X86)

#include "vector_avx2.h"

#include "variant.h"

namespace w8a16 {
extern const Variant variant_avx2;
const Variant variant_avx2 = variant("avx2", 33);
}  // namespace w8a16

#endif
