// AVX-512 F, BW, VL and DQ: x86-64 servers since 2017.

#include "processor.h"

#if defined(W8A16_X86)

#include "vector_avx512.h"

#include "variant.h"

namespace w8a16 {
extern const Variant variant_avx512;
const Variant variant_avx512 = variant("avx512", 33);  // 33: as measured for AVX2
}  // namespace w8a16

#endif
