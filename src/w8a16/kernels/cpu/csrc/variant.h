// The body of a variant: the algorithms, compiled with the vector primitives included before.
//
// Everything is in an unnamed namespace, so that no function compiled for one instruction set can
// stand in for another's at link time.

#pragma once

#include "crc32.h"
#include "gather.h"
#include "narrow.h"
#include "probe.h"
#include "quantize.h"
#include "wide.h"

namespace {

bool linear_refined_by(const w8a16::Refinement* refined, const w8a16::Linear& p) {
  if (p.m == 0 || p.n == 0) return true;
  if (p.wide) return linear_wide(p, refined);
  w8a16::Linear block = p;  // its working memory grows with the rows, so they come in blocks
  for (int64_t m = 0; m < p.m; m += kNarrowRows) {
    block.x = advance(p.x, m * p.x_stride, p.dtype);
    block.y = advance(p.y, m * p.y_stride, p.dtype);
    block.m = smaller(kNarrowRows, p.m - m);
    if (!linear_narrow(block, refined)) return false;
  }
  return true;
}

bool linear(const w8a16::Linear& p) { return linear_refined_by(nullptr, p); }
bool linear_input_grad(const w8a16::LinearInputGrad& p) { return input_grad_wide(p, nullptr); }
bool refined_linear(const w8a16::Refined<w8a16::Linear>& p) { return linear_refined_by(&p.refinement, p.all); }
bool refined_linear_input_grad(const w8a16::Refined<w8a16::LinearInputGrad>& p) {
  return input_grad_wide(p.all, &p.refinement);
}

constexpr w8a16::Variant variant(const char* name, int64_t wide_from) {
  return {name,     linear, linear_input_grad, refined_linear, refined_linear_input_grad,
          quantize, gather, crc32,             read_bytes,     multiply_add,
          wide_from};
}

}  // namespace
