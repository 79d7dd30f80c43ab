// The transposition of codes with 256-bit registers, for the AVX2 and the AVX-512 variant.

#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "compiler.h"

namespace {

constexpr int kBlockChannels = 8;
constexpr int kBlockDepth = 32;

// Codes of kBlockChannels x kBlockDepth, transposed and widened: panel[d * panel_stride + c] = q[c][d].
// They are transposed as 32-bit units, four codes each, and then widened code by code.
inline void transpose_codes(const int8_t* q, int64_t stride, float* panel, int64_t panel_stride) {
  __m256i r[8], t[8];
  W8A16_UNROLL
  for (int c = 0; c < 8; ++c) r[c] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + c * stride));
  W8A16_UNROLL
  for (int c = 0; c < 8; c += 2) {
    t[c] = _mm256_unpacklo_epi32(r[c], r[c + 1]);
    t[c + 1] = _mm256_unpackhi_epi32(r[c], r[c + 1]);
  }
  W8A16_UNROLL
  for (int c = 0; c < 8; c += 4) {
    r[c] = _mm256_unpacklo_epi64(t[c], t[c + 2]);
    r[c + 1] = _mm256_unpackhi_epi64(t[c], t[c + 2]);
    r[c + 2] = _mm256_unpacklo_epi64(t[c + 1], t[c + 3]);
    r[c + 3] = _mm256_unpackhi_epi64(t[c + 1], t[c + 3]);
  }
  W8A16_UNROLL
  for (int unit = 0; unit < 8; ++unit) {
    const __m256i quads = unit < 4 ? _mm256_permute2x128_si256(r[unit], r[unit + 4], 0x20)
                                   : _mm256_permute2x128_si256(r[unit - 4], r[unit], 0x31);
    float* to = panel + 4 * unit * panel_stride;
    _mm256_storeu_ps(to, _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(quads, 24), 24)));
    _mm256_storeu_ps(to + panel_stride, _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(quads, 16), 24)));
    _mm256_storeu_ps(to + 2 * panel_stride, _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(quads, 8), 24)));
    _mm256_storeu_ps(to + 3 * panel_stride, _mm256_cvtepi32_ps(_mm256_srai_epi32(quads, 24)));
  }
}

// Four rows of four floats: to[c * to_stride + r] = from[r * from_stride + c].
inline void transpose_floats(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  __m128 r0 = _mm_loadu_ps(from), r1 = _mm_loadu_ps(from + from_stride);
  __m128 r2 = _mm_loadu_ps(from + 2 * from_stride), r3 = _mm_loadu_ps(from + 3 * from_stride);
  _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
  _mm_storeu_ps(to, r0);
  _mm_storeu_ps(to + to_stride, r1);
  _mm_storeu_ps(to + 2 * to_stride, r2);
  _mm_storeu_ps(to + 3 * to_stride, r3);
}

}  // namespace
