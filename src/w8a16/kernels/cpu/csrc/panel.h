// Packing for the wide algorithm: activation rows in groups, codes in panels of float32.

#pragma once

#include "floats.h"

namespace {

constexpr int64_t kPanel = kLanes * kVectorsWide;

// rows [m, depth] -> groups of kRowsWide, each [depth][rows of the group], so that the tile reads in order.
template <Float D>
void pack_rows_as(const void* a, int64_t stride, int64_t rows, int64_t depth, const float* factors, float* packed) {
  float lanes[kLanes];
  for (int64_t i = 0; i < rows; i += kRowsWide) {
    const int64_t group = smaller(kRowsWide, rows - i);
    float* to = packed + i * depth;
    for (int64_t r = 0; r < group; ++r) {
      const int64_t row = (i + r) * stride;
      for (int64_t k = 0; k < depth; k += kLanes) {
        const int count = static_cast<int>(smaller(kLanes, depth - k));
        Vec v = count == kLanes ? load_as<D>(a, row + k) : load_as_first<D>(a, row + k, count);
        if (factors) v = mul(v, count == kLanes ? load(factors + k) : load_first(factors + k, count));
        store(lanes, v);
        for (int c = 0; c < count; ++c) to[(k + c) * group + r] = lanes[c];
      }
    }
  }
}

inline void pack_rows(const void* a, int64_t stride, Float dtype, int64_t rows, int64_t depth, const float* factors,
                      float* packed) {
  switch (dtype) {
    case Float::f32: return pack_rows_as<Float::f32>(a, stride, rows, depth, factors, packed);
    case Float::bf16: return pack_rows_as<Float::bf16>(a, stride, rows, depth, factors, packed);
    case Float::f16: return pack_rows_as<Float::f16>(a, stride, rows, depth, factors, packed);
  }
}

// panel[d][c] = q[d][c]: rows of q as they lie; columns from `width` on are zero.
inline void fill_straight(const int8_t* q, int64_t stride, int64_t width, int64_t depth, float* panel) {
  for (int64_t d = 0; d < depth; ++d)
    for (int64_t c = 0; c < kPanel; c += kLanes) {
      const int64_t left = width - c;
      const Vec v = left >= kLanes ? load_codes(q + d * stride + c)
                    : left > 0     ? load_codes_first(q + d * stride + c, static_cast<int>(left))
                                   : zero();
      store(panel + d * kPanel + c, v);
    }
}

// panel[d][c] = q[c][d]: a transposition; columns from `width` on are zero.
inline void fill_transposed_plain(const int8_t* q, int64_t stride, int64_t width, int64_t from, int64_t depth,
                                  float* panel) {
  for (int64_t d = from; d < depth; ++d)
    for (int64_t c = 0; c < kPanel; ++c) panel[d * kPanel + c] = c < width ? static_cast<float>(q[c * stride + d]) : 0.0f;
}

#if defined(__AVX2__)

// Eight channels x 32 codes: transposed as 32-bit units (four codes each), then widened code by code.
inline void transpose_8x32(const int8_t* q, int64_t stride, float* panel) {
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
    const __m256i quad = unit < 4 ? _mm256_permute2x128_si256(r[unit], r[unit + 4], 0x20)
                                  : _mm256_permute2x128_si256(r[unit - 4], r[unit], 0x31);
    float* to = panel + 4 * unit * kPanel;
    _mm256_storeu_ps(to, _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(quad, 24), 24)));
    _mm256_storeu_ps(to + kPanel, _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(quad, 16), 24)));
    _mm256_storeu_ps(to + 2 * kPanel, _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(quad, 8), 24)));
    _mm256_storeu_ps(to + 3 * kPanel, _mm256_cvtepi32_ps(_mm256_srai_epi32(quad, 24)));
  }
}

inline void fill_transposed(const int8_t* q, int64_t stride, int64_t width, int64_t depth, float* panel) {
  if (width < kPanel) return fill_transposed_plain(q, stride, width, 0, depth, panel);
  int64_t d = 0;
  for (; d + 32 <= depth; d += 32)
    for (int64_t c = 0; c < kPanel; c += 8) transpose_8x32(q + c * stride + d, stride, panel + d * kPanel + c);
  fill_transposed_plain(q, stride, width, d, depth, panel);
}

#else

inline void fill_transposed(const int8_t* q, int64_t stride, int64_t width, int64_t depth, float* panel) {
  fill_transposed_plain(q, stride, width, 0, depth, panel);
}

#endif

}  // namespace
