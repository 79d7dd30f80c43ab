// Packing for the wide algorithm: activation rows in groups, codes in panels of float32.

#pragma once

#include "floats.h"

namespace {

constexpr int64_t kPanel = kLanes * kVectorsWide;
static_assert(kPanel % kBlockChannels == 0, "a panel is transposed in whole blocks of channels");

// rows [m, depth] -> groups of kRowsWide, each [depth][rows of the group], so that the tile reads in order.
// Four rows by four columns at a time; the last four rows of a group may overlap the ones before.
template <Float D>
void pack_rows_as(const void* a, int64_t stride, int64_t rows, int64_t depth, const float* factors, float* packed) {
  float lanes[kRowsWide * kLanes];
  for (int64_t i = 0; i < rows; i += kRowsWide) {
    const int64_t group = smaller(kRowsWide, rows - i);
    float* to = packed + i * depth;
    for (int64_t k = 0; k < depth; k += kLanes) {
      const int count = static_cast<int>(smaller(kLanes, depth - k));
      const bool whole = count == kLanes;
      for (int64_t r = 0; r < group; ++r) {
        const int64_t at = (i + r) * stride + k;
        Vec v = whole ? load_as<D>(a, at) : load_as_first<D>(a, at, count);
        if (factors) v = mul(v, whole ? load(factors + k) : load_first(factors + k, count));
        store(lanes + r * kLanes, v);
      }
      if (whole && group >= 4) {
        for (int64_t c = 0; c < kLanes; c += 4)
          for (int64_t r = 0; r < group; r += 4) {
            const int64_t row = smaller(r, group - 4);
            transpose_floats(lanes + row * kLanes + c, kLanes, to + (k + c) * group + row, group);
          }
      } else {
        for (int64_t r = 0; r < group; ++r)
          for (int c = 0; c < count; ++c) to[(k + c) * group + r] = lanes[r * kLanes + c];
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
inline void fill_transposed(const int8_t* q, int64_t stride, int64_t width, int64_t depth, float* panel) {
  for (int64_t c = 0; c < kPanel; c += kBlockChannels) {
    int64_t d = 0;
    if (c + kBlockChannels <= width)
      for (; d + kBlockDepth <= depth; d += kBlockDepth)
        transpose_codes(q + c * stride + d, stride, panel + d * kPanel + c, kPanel);
    for (; d < depth; ++d)
      for (int64_t i = c; i < c + kBlockChannels; ++i)
        panel[d * kPanel + i] = i < width ? static_cast<float>(q[i * stride + d]) : 0.0f;
  }
}

}  // namespace
