// Weights held better than by one scale a row: what the two algorithms add for scales of groups of columns and
// for outliers, the weights that are floats beside the codes.
//
// The narrow algorithm sums each group by itself and adds a row's outliers to the bias. The wide one refines a
// panel once it is filled, so that it holds the very weights; the loops that multiply need not know.

#pragma once

#include "floats.h"
#include "panel.h"

namespace {

static_assert(w8a16::kGroupUnit % kLanes == 0, "the lanes of a vector of codes share a scale");

// Activations of one row.
struct Row {
  const void* data;
  Float dtype;
};

using w8a16::element;

template <Float D>
inline float value_at(const void* row, int64_t column) {
  if (D == Float::f32) return element(static_cast<const float*>(row), column);
  float value;
  store_first(&value, load_as_first<D>(row, column, 1), 1);
  return value;
}

// terms[n] = bias[n] + the outliers of channel `first` + n times the row; no bias is zero.
template <Float D>
void add_outliers_as(const w8a16::Refinement& r, int64_t first, int64_t channels, const void* row, const float* bias,
                     float* terms) {
  const int32_t* column = r.columns + first * r.outliers;
  const float* value = r.values + first * r.outliers;
  for (int64_t n = 0; n < channels; ++n) {
    float sum = bias ? bias[n] : 0.0f;
    for (int64_t i = n * r.outliers; i < (n + 1) * r.outliers; ++i)
      sum += element(value, i) * value_at<D>(row, element(column, i));
    terms[n] = sum;
  }
}

inline void add_outliers(const w8a16::Refinement& r, int64_t first, int64_t channels, Row row, const float* bias,
                         float* terms) {
  switch (row.dtype) {
    case Float::f32: return add_outliers_as<Float::f32>(r, first, channels, row.data, bias, terms);
    case Float::bf16: return add_outliers_as<Float::bf16>(r, first, channels, row.data, bias, terms);
    case Float::f16: return add_outliers_as<Float::f16>(r, first, channels, row.data, bias, terms);
  }
}

// A panel of the forward pass, [depth of K][channels], from codes to weights. `scales`: of its first channel.
inline void refine_transposed(const w8a16::Refinement& r, const float* scales, int64_t channel, int64_t width,
                              int64_t column, int64_t depth, float* panel) {
  float factors[kPanel];
  for (int64_t d = 0, end = 0; d < depth; d = end) {
    const int64_t g = (column + d) / r.group;
    end = smaller(depth, (g + 1) * r.group - column);
    for (int64_t c = 0; c < kPanel; ++c) factors[c] = c < width ? element(scales, c * r.groups + g) : 0.0f;
    Vec factor[kVectorsWide];
    W8A16_UNROLL
    for (int j = 0; j < kVectorsWide; ++j) factor[j] = load(factors + j * kLanes);
    for (int64_t i = d; i < end; ++i)
      W8A16_UNROLL
      for (int j = 0; j < kVectorsWide; ++j) {
        float* weights = panel + i * kPanel + j * kLanes;
        store(weights, mul(load(weights), factor[j]));
      }
  }
  const int32_t* columns = r.columns + channel * r.outliers;
  const float* values = r.values + channel * r.outliers;
  for (int64_t c = 0, at = 0; c < width; ++c)
    for (int64_t i = 0; i < r.outliers; ++i, ++at) {
      const int64_t d = element(columns, at) - column;
      if (0 <= d && d < depth) panel[d * kPanel + c] += element(values, at);
    }
}

// A panel of the input gradient, [depth of N][columns], from codes to scaled codes. `scales`: of its first row.
inline void scale_straight(const w8a16::Refinement& r, const float* scales, int64_t column, int64_t width,
                           int64_t depth, float* panel) {
  for (int64_t c = 0; c < width; c += kLanes) {  // lanes share a group
    const float* scale = scales + (column + c) / r.group;
    for (int64_t d = 0; d < depth; ++d) {
      float* weights = panel + d * kPanel + c;
      store(weights, mul(load(weights), splat(element(scale, d * r.groups))));
    }
  }
}

// The outliers of `depth` rows of the weight times their packed gradients, added to sums of `outputs` columns.
inline void add_outlier_rows(const w8a16::Refinement& r, int64_t channel, int64_t depth, int64_t column,
                             int64_t outputs, const float* packed, int64_t rows, float* sums) {
  const int32_t* columns = r.columns + channel * r.outliers;
  const float* values = r.values + channel * r.outliers;
  for (int64_t d = 0, at = 0; d < depth; ++d)
    for (int64_t i = 0; i < r.outliers; ++i, ++at) {
      const int64_t c = element(columns, at) - column;
      if (c < 0 || c >= outputs) continue;
      const float value = element(values, at);
      float* sum = sums + c / kPanel * kPanel * rows + c % kPanel;
      for (int64_t first = 0; first < rows; first += kRowsWide) {
        const int64_t group = smaller(kRowsWide, rows - first);
        const float* gradients = packed + first * depth + d * group;
        for (int64_t m = 0; m < group; ++m) sum[(first + m) * kPanel] += gradients[m] * value;
      }
    }
}

}  // namespace
