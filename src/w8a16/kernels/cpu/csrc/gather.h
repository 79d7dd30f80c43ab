// Rows of a table of codes, widened and scaled: the lookup of an embedding, and dequantization.

#pragma once

#include "floats.h"

namespace {

template <Float D>
void gather_as(const w8a16::Gather& p) {
  for (int64_t i = 0; i < p.m; ++i) {
    const int64_t row = p.indices == nullptr ? i : p.indices[i];
    const int8_t* q = p.q + row * p.q_stride;
    float scale;
    widen(advance(p.scales.data, row, p.scales.dtype), p.scales.dtype, 1, &scale);
    const Vec s = splat(scale);
    const int64_t at = i * p.k;
    int64_t k = 0;
    for (; k + kLanes <= p.k; k += kLanes) store_as<D>(p.y, at + k, mul(load_codes(q + k), s));
    if (k < p.k) {
      const int left = static_cast<int>(p.k - k);
      store_as_first<D>(p.y, at + k, mul(load_codes_first(q + k, left), s), left);
    }
  }
}

void gather(const w8a16::Gather& p) {
  switch (p.dtype) {
    case Float::f32: return gather_as<Float::f32>(p);
    case Float::bf16: return gather_as<Float::bf16>(p);
    case Float::f16: return gather_as<Float::f16>(p);
  }
}

}  // namespace
