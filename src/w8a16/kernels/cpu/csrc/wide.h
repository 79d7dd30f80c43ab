// The wide algorithm: many activation rows. Lanes run along the outputs.
//
// A panel of codes (kWideDepth deep, kPanel outputs) is widened to float32 once and serves a whole block
// of rows. The rows are packed in groups of kRowsWide, so that the inner loop reads both sides in
// order. The same loop serves the forward pass (a panel is a transposed piece of q) and the input
// gradient (a panel is a piece of q as it lies).

#pragma once

#include "floats.h"
#include "panel.h"
#include "refine.h"

namespace {

constexpr int64_t kWideDepth = 4096 / kPanel;  // a panel is 16 KiB
constexpr int64_t kWideRows = 192;             // rows packed at a time: 192 KiB with eight lanes
constexpr int64_t kWideOutputs = 1024;         // outputs whose partial sums are kept
static_assert(kWideRows % kRowsWide == 0, "only the last rows of a problem may form a smaller tile");
static_assert(kWideOutputs % kPanel == 0, "panels end where a block of outputs does");

// sums[i][:] (+)= rows[:, i] . panel, for MR rows and one panel. The sums of a tile lie together: rows a
// power of two apart would share cache sets and need a page each.
template <int MR>
void wide_tile(const float* rows, const float* panel, int64_t depth, float* sums, bool first) {
  constexpr int NV = kVectorsWide;
  Vec acc[MR][NV];
  W8A16_UNROLL
  for (int i = 0; i < MR; ++i)
    W8A16_UNROLL
    for (int j = 0; j < NV; ++j) acc[i][j] = first ? zero() : load(sums + i * kPanel + j * kLanes);
  W8A16_UNROLL_BY(4)
  for (int64_t k = 0; k < depth; ++k) {
    Vec w[NV];
    W8A16_UNROLL
    for (int j = 0; j < NV; ++j) w[j] = load(panel + k * kPanel + j * kLanes);
    W8A16_UNROLL
    for (int i = 0; i < MR; ++i) {
      const Vec a = splat(rows[k * MR + i]);
      W8A16_UNROLL
      for (int j = 0; j < NV; ++j) acc[i][j] = fma(a, w[j], acc[i][j]);
    }
  }
  W8A16_UNROLL
  for (int i = 0; i < MR; ++i)
    W8A16_UNROLL
    for (int j = 0; j < NV; ++j) store(sums + i * kPanel + j * kLanes, acc[i][j]);
}

template <int MR>
void wide_rest(int64_t left, const float* rows, const float* panel, int64_t depth, float* sums, bool first) {
  if constexpr (MR > 0) {
    if (left == MR) return wide_tile<MR>(rows, panel, depth, sums, first);
    wide_rest<MR - 1>(left, rows, panel, depth, sums, first);
  }
}

// One problem in the terms of this file: y[m, outputs] = a[m, depth] . b[depth, outputs].
struct WideProblem {
  const void* a;
  int64_t a_stride;
  Float dtype;
  w8a16::FloatVector a_scales;  // multiplies the columns of a; null in the forward pass
  const int8_t* q;
  int64_t q_stride;
  bool transposed;  // b is q^T (forward) or q (gradient)
  w8a16::FloatVector scales, bias;  // of the outputs; null in the gradient
  void* y;
  int64_t y_stride;
  int64_t m, depth, outputs;
  const w8a16::Refinement* refined;  // or null; then also `weight_scales` [n, groups] instead of the scales above
  const float* weight_scales;
};

// The panel of outputs from `n` and depth from `k` on, from codes to weights.
inline void refine(const WideProblem& p, int64_t n, int64_t width, int64_t k, int64_t depth, float* panel) {
  const w8a16::Refinement& r = *p.refined;
  if (p.transposed) refine_transposed(r, p.weight_scales + n * r.groups, n, width, k, depth, panel);
  else scale_straight(r, p.weight_scales + k * r.groups, r.first_column + n, width, depth, panel);
}

bool wide(const WideProblem& p) {
  const int64_t block_rows = smaller(kWideRows, p.m);
  const int64_t block_outputs = smaller(kWideOutputs, (p.outputs + kPanel - 1) / kPanel * kPanel);
  float* packed = w8a16::workspace(0, block_rows * kWideDepth + kPanel * kWideDepth + 2 * kWideOutputs + kWideDepth);
  float* sums = w8a16::workspace(1, block_rows * block_outputs);
  if (packed == nullptr || sums == nullptr) return false;
  float* panel = packed + block_rows * kWideDepth;
  float* scales = panel + kPanel * kWideDepth;
  float* bias = scales + kWideOutputs;
  float* factors = bias + kWideOutputs;

  for (int64_t m = 0; m < p.m; m += kWideRows) {
    const int64_t rows = smaller(kWideRows, p.m - m);
    for (int64_t n = 0; n < p.outputs; n += kWideOutputs) {
      const int64_t outputs = smaller(kWideOutputs, p.outputs - n);
      for (int64_t k = 0; k < p.depth || k == 0; k += kWideDepth) {
        const int64_t depth = smaller(kWideDepth, p.depth - k);
        if (p.a_scales.data) widen(advance(p.a_scales.data, k, p.a_scales.dtype), p.a_scales.dtype, depth, factors);
        pack_rows(advance(p.a, m * p.a_stride + k, p.dtype), p.a_stride, p.dtype, rows, depth,
                  p.a_scales.data ? factors : nullptr, packed);
        for (int64_t j = 0; j < outputs; j += kPanel) {
          const int64_t width = smaller(kPanel, outputs - j);
          if (p.transposed) fill_transposed(p.q + (n + j) * p.q_stride + k, p.q_stride, width, depth, panel);
          else fill_straight(p.q + k * p.q_stride + n + j, p.q_stride, width, depth, panel);
          if (p.refined) refine(p, n + j, width, k, depth, panel);
          int64_t i = 0;
          for (; i + kRowsWide <= rows; i += kRowsWide)
            wide_tile<kRowsWide>(packed + i * depth, panel, depth, sums + j * rows + i * kPanel, k == 0);
          wide_rest<kRowsWide - 1>(rows - i, packed + i * depth, panel, depth, sums + j * rows + i * kPanel, k == 0);
        }
        if (p.refined && !p.transposed)
          add_outlier_rows(*p.refined, k, depth, p.refined->first_column + n, outputs, packed, rows, sums);
        if (p.depth == 0) break;
      }
      if (p.scales.data) widen(advance(p.scales.data, n, p.scales.dtype), p.scales.dtype, outputs, scales);
      if (p.bias.data) widen(advance(p.bias.data, n, p.bias.dtype), p.bias.dtype, outputs, bias);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < outputs; j += kPanel)
          finish(sums + j * rows + i * kPanel, p.scales.data ? scales + j : nullptr, p.bias.data ? bias + j : nullptr,
                 smaller(kPanel, outputs - j), advance(p.y, (m + i) * p.y_stride + n + j, p.dtype), p.dtype);
    }
  }
  return true;
}

constexpr w8a16::FloatVector kNone = {nullptr, Float::f32};

bool linear_wide(const w8a16::Linear& p, const w8a16::Refinement* refined) {
  return wide({p.x, p.x_stride, p.dtype, kNone, p.q, p.q_stride, true, refined ? kNone : p.scales, p.bias, p.y,
               p.y_stride, p.m, p.k, p.n, refined, static_cast<const float*>(p.scales.data)});
}

bool input_grad_wide(const w8a16::LinearInputGrad& p, const w8a16::Refinement* refined) {
  return wide({p.dy, p.dy_stride, p.dtype, refined ? kNone : p.scales, p.q, p.q_stride, false, kNone, kNone, p.dx,
               p.dx_stride, p.m, p.n, p.k, refined, static_cast<const float*>(p.scales.data)});
}

}  // namespace
