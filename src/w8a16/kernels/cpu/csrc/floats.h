// Loads and stores that convert: any activation dtype to and from float32 lanes. Included by a variant
// after its vector primitives.

#pragma once

#include "compiler.h"
#include "kernels.h"

namespace {

using w8a16::Float;

inline const void* advance(const void* p, int64_t elements, Float dtype) {
  return static_cast<const char*>(p) + elements * w8a16::bytes_of(dtype);
}
inline void* advance(void* p, int64_t elements, Float dtype) {
  return static_cast<char*>(p) + elements * w8a16::bytes_of(dtype);
}

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <Float D>
inline Vec load_as(const void* p, int64_t i) {
  if (D == Float::f32) {
    return load(reinterpret_cast<const float*>(static_cast<const char*>(p) + 4 * i));
  }
  const uint16_t* h = reinterpret_cast<const uint16_t*>(static_cast<const char*>(p) + 2 * i);
  return D == Float::bf16 ? load_bf16(h) : load_f16(h);
}

template <Float D>
inline Vec load_as_first(const void* p, int64_t i, int count) {
  if (D == Float::f32) return load_first(reinterpret_cast<const float*>(static_cast<const char*>(p) + 4 * i), count);
  uint16_t lanes[kLanes] = {};
  memcpy(lanes, static_cast<const char*>(p) + 2 * i, 2 * static_cast<size_t>(count));
  return D == Float::bf16 ? load_bf16(lanes) : load_f16(lanes);
}

template <Float D>
inline void store_as(void* p, int64_t i, Vec a) {
  if (D == Float::f32) return store(reinterpret_cast<float*>(static_cast<char*>(p) + 4 * i), a);
  uint16_t* h = reinterpret_cast<uint16_t*>(static_cast<char*>(p) + 2 * i);
  return D == Float::bf16 ? store_bf16(h, a) : store_f16(h, a);
}

template <Float D>
inline void store_as_first(void* p, int64_t i, Vec a, int count) {
  if (D == Float::f32) return store_first(reinterpret_cast<float*>(static_cast<char*>(p) + 4 * i), a, count);
  uint16_t lanes[kLanes];
  D == Float::bf16 ? store_bf16(lanes, a) : store_f16(lanes, a);
  memcpy(static_cast<char*>(p) + 2 * i, lanes, 2 * static_cast<size_t>(count));
}

// Copies `count` values, as float32.
template <Float D>
inline void widen_as(const void* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load_as<D>(from, i));
  const int left = static_cast<int>(count - i);
  if (left > 0) store_first(to + i, load_as_first<D>(from, i, left), left);
}

inline void widen(const void* from, Float dtype, int64_t count, float* to) {
  switch (dtype) {
    case Float::f32: return widen_as<Float::f32>(from, count, to);
    case Float::bf16: return widen_as<Float::bf16>(from, count, to);
    case Float::f16: return widen_as<Float::f16>(from, count, to);
  }
}

// y[i] = sums[i] * scales[i] + bias[i]: the only place where an output is rounded. Null: no factor, no term.
template <Float D>
inline void finish_as(const float* sums, const float* scales, const float* bias, int64_t count, void* y) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int lanes = static_cast<int>(smaller(kLanes, count - i));
    const bool whole = lanes == kLanes;
    Vec v = whole ? load(sums + i) : load_first(sums + i, lanes);
    if (scales) {
      const Vec s = whole ? load(scales + i) : load_first(scales + i, lanes);
      v = bias ? fma(v, s, whole ? load(bias + i) : load_first(bias + i, lanes)) : mul(v, s);
    } else if (bias) {
      v = add(v, whole ? load(bias + i) : load_first(bias + i, lanes));
    }
    if (whole) store_as<D>(y, i, v);
    else store_as_first<D>(y, i, v, lanes);
  }
}

inline void finish(const float* sums, const float* scales, const float* bias, int64_t count, void* y, Float dtype) {
  switch (dtype) {
    case Float::f32: return finish_as<Float::f32>(sums, scales, bias, count, y);
    case Float::bf16: return finish_as<Float::bf16>(sums, scales, bias, count, y);
    case Float::f16: return finish_as<Float::f16>(sums, scales, bias, count, y);
  }
}

}  // namespace
