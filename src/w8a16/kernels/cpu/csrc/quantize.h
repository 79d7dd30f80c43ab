// The law of the weights for a block of rows: largest magnitude, scale, codes, and the error they make.
// Codes and scales are the same bits as core/weights.py gives.

#pragma once

#include "bits.h"
#include "floats.h"

namespace {

constexpr float kSmallestScale = 0x1p-125f;  // below it a row is stored as zeros: docs/decisions/0002

template <Float D>
uint32_t largest_magnitude(const void* w, int64_t k) {
  Vec largest[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= k; i += 4 * kLanes)
    W8A16_UNROLL
    for (int j = 0; j < 4; ++j) largest[j] = larger_bits(largest[j], magnitude(load_as<D>(w, i + j * kLanes)));
  for (; i < k; i += kLanes) {
    const int64_t left = k - i;
    const Vec v = left >= kLanes ? load_as<D>(w, i) : load_as_first<D>(w, i, static_cast<int>(left));
    largest[0] = larger_bits(largest[0], magnitude(v));
  }
  float lanes[kLanes];
  store(lanes, larger_bits(larger_bits(largest[0], largest[1]), larger_bits(largest[2], largest[3])));
  uint32_t bits = 0;
  for (float lane : lanes) bits = bits_of(lane) > bits ? bits_of(lane) : bits;
  return bits;
}

// round_half_even(w / scale), with the quotient as float32 division rounds it. A product with the
// reciprocal is within 2^-15 of that quotient, so only values that close to a half need the division.
// No clamp: |w| <= amax, so the quotient is at most 127 * (1 + 2^-22).
inline Vec codes_of(Vec w, Vec scale, Vec reciprocal) {
  const Vec near = mul(w, reciprocal);
  const Vec code = round_even(near);
  const Vec distance = magnitude(fma(code, splat(-1.0f), near));
  return any_above(distance, splat(0.5f - 0x1p-14f)) ? round_even(divide(w, scale)) : code;
}

struct RowErrors {
  Vec signal, noise, worst;
  void take(Vec w, Vec code, Vec scale, Vec reciprocal) {
    const Vec steps = mul(w, reciprocal);
    const Vec error = mul(fma(mul(code, splat(-1.0f)), scale, w), reciprocal);
    signal = fma(steps, steps, signal);
    noise = fma(error, error, noise);
    worst = larger_bits(worst, magnitude(error));
  }
  void write(float* to) const {
    float lanes[kLanes];
    to[0] = sum_lanes(signal);
    to[1] = sum_lanes(noise);
    store(lanes, worst);
    to[2] = 0.0f;
    for (float lane : lanes) to[2] = 2 * lane > to[2] ? 2 * lane : to[2];
  }
};

template <Float D, bool kErrors>
void quantize_row(const void* w, int64_t k, float scale, int8_t* q, float* errors) {
  const Vec s = splat(scale), reciprocal = splat(1.0f / scale);
  RowErrors found = {zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    const Vec v = load_as<D>(w, i);
    const Vec code = codes_of(v, s, reciprocal);
    store_codes(q + i, code);
    if (kErrors) found.take(v, code, s, reciprocal);
  }
  if (i < k) {
    const int left = static_cast<int>(k - i);
    const Vec v = load_as_first<D>(w, i, left);
    const Vec code = codes_of(v, s, reciprocal);
    int8_t lanes[kLanes];
    store_codes(lanes, code);
    memcpy(q + i, lanes, static_cast<size_t>(left));
    if (kErrors) found.take(v, code, s, reciprocal);
  }
  if (kErrors) found.write(errors);
}

template <Float D>
w8a16::QuantizeResult quantize_as(const w8a16::Quantize& p) {
  w8a16::QuantizeResult result = {};
  for (int64_t n = 0; n < p.n; ++n) {
    const void* w = advance(p.w, n * p.w_stride, D);
    int8_t* q = p.q + n * p.k;
    float* errors = p.errors ? p.errors + 3 * n : nullptr;
    const uint32_t bits = largest_magnitude<D>(w, p.k);
    if (bits >= 0x7f800000u) {
      ++result.nonfinite_rows;
      continue;
    }
    const float scale = float_of(bits) / 127.0f;
    if (!(scale >= kSmallestScale)) {
      result.underflow_rows += bits != 0;
      result.zero_rows += bits == 0;
      p.scales[n] = 1.0f;
      memset(q, 0, static_cast<size_t>(p.k));
      if (errors) memset(errors, 0, 3 * sizeof(float));
      continue;
    }
    p.scales[n] = scale;
    if (!errors) {
      quantize_row<D, false>(w, p.k, scale, q, nullptr);
      continue;
    }
    quantize_row<D, true>(w, p.k, scale, q, errors);
    const double square = static_cast<double>(scale) * scale;
    result.signal += square * errors[0];
    result.noise += square * errors[1];
    result.largest = errors[2] > result.largest ? errors[2] : result.largest;
  }
  return result;
}

w8a16::QuantizeResult quantize(const w8a16::Quantize& p) {
  switch (p.dtype) {
    case Float::bf16: return quantize_as<Float::bf16>(p);
    case Float::f16: return quantize_as<Float::f16>(p);
    default: return quantize_as<Float::f32>(p);
  }
}

}  // namespace
