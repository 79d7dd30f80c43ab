// Vector primitives in plain C++: four float32 lanes as an array. Runs everywhere; compilers turn the
// loops into vector instructions where they can. `fma` rounds twice here, which the bounds allow.

#pragma once

#include <stdint.h>
#include <string.h>

#include "bits.h"
#include "compiler.h"

namespace {

constexpr int kLanes = 4;
constexpr int kRowsWide = 4;  // register tile of the wide kernel: 4 rows x 2 vectors = 8 sums
constexpr int kVectorsWide = 2;
constexpr int kRowsNarrow = 4;  // register tiles of the narrow kernel, by rows: at most 8 sums
constexpr int kChannelsNarrow[kRowsNarrow] = {4, 4, 2, 2};

struct Vec {
  float lane[kLanes];
};

// One operation on every lane.
template <class Operation>
W8A16_INLINE Vec each(Operation lane) {
  Vec r;
  W8A16_UNROLL
  for (int i = 0; i < kLanes; ++i) r.lane[i] = lane(i);
  return r;
}

inline Vec splat(float a) { return each([&](int) { return a; }); }
inline Vec zero() { return splat(0.0f); }
inline Vec add(Vec a, Vec b) { return each([&](int i) { return a.lane[i] + b.lane[i]; }); }
inline Vec mul(Vec a, Vec b) { return each([&](int i) { return a.lane[i] * b.lane[i]; }); }
inline Vec fma(Vec a, Vec b, Vec c) { return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; }); }

// Addresses need no alignment: memory is only copied.
inline Vec load(const float* p) {
  Vec r;
  memcpy(&r, p, sizeof r);
  return r;
}
inline Vec load_first(const float* p, int count) {
  Vec r = zero();
  memcpy(&r, p, sizeof(float) * static_cast<size_t>(count));
  return r;
}
inline void store(float* p, Vec a) { memcpy(p, &a, sizeof a); }
inline void store_first(float* p, Vec a, int count) { memcpy(p, &a, sizeof(float) * static_cast<size_t>(count)); }

inline Vec load_codes(const int8_t* p) { return each([&](int i) { return static_cast<float>(p[i]); }); }
inline Vec load_codes_first(const int8_t* p, int count) {
  return each([&](int i) { return i < count ? static_cast<float>(p[i]) : 0.0f; });
}

// bfloat16 is the upper half of a float32.
inline uint16_t bf16_of(float a) {
  const uint32_t bits = bits_of(a);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits | 0x400000u) >> 16);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

// float16: 1 sign, 5 exponent and 10 fraction bits. Only normal float32 numbers are computed with, so
// that the flush-to-zero mode of the processor does not matter.
inline float from_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, rest = half & 0x7fffu;
  if (rest >= 0x7c00u) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  if (rest >= 0x400u) return float_of(sign | ((rest << 13) + ((127u - 15u) << 23)));
  return float_of(sign | bits_of(static_cast<float>(rest) * 0x1p-24f));
}
inline uint16_t f16_of(float a) {
  const uint32_t bits = bits_of(a), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
  uint32_t half;
  if (rest > 0x7f800000u) half = 0x7e00u | (rest >> 13 & 0x3ffu);
  else if (rest >= 0x477ff000u) half = 0x7c00u;  // 65520 and more round to infinity
  else if (rest >= 0x38800000u) half = (rest - ((127u - 15u) << 23) + 0xfffu + (rest >> 13 & 1)) >> 13;
  else half = bits_of(float_of(rest) + 0.5f) - bits_of(0.5f);  // one unit of 0.5f is the smallest float16
  return static_cast<uint16_t>(sign | half);
}

struct Halves {
  uint16_t lane[kLanes];
};
inline Vec load_bf16(const uint16_t* p) {
  Halves h;
  memcpy(&h, p, sizeof h);
  return each([&](int i) { return float_of(static_cast<uint32_t>(h.lane[i]) << 16); });
}
inline Vec load_f16(const uint16_t* p) {
  Halves h;
  memcpy(&h, p, sizeof h);
  return each([&](int i) { return from_f16(h.lane[i]); });
}
inline void store_bf16(uint16_t* p, Vec a) {
  Halves h;
  for (int i = 0; i < kLanes; ++i) h.lane[i] = bf16_of(a.lane[i]);
  memcpy(p, &h, sizeof h);
}
inline void store_f16(uint16_t* p, Vec a) {
  Halves h;
  for (int i = 0; i < kLanes; ++i) h.lane[i] = f16_of(a.lane[i]);
  memcpy(p, &h, sizeof h);
}

inline float sum_lanes(Vec a) { return (a.lane[0] + a.lane[2]) + (a.lane[1] + a.lane[3]); }

// For quantization: see vector_avx2.h.
inline Vec round_even(Vec a) {  // of values below 2^22: adding 1.5 * 2^23 leaves no fraction bits
  return each([&](int i) { return (a.lane[i] + 0x1.8p23f) - 0x1.8p23f; });
}
inline Vec divide(Vec a, Vec b) { return each([&](int i) { return a.lane[i] / b.lane[i]; }); }
inline Vec magnitude(Vec a) { return each([&](int i) { return float_of(bits_of(a.lane[i]) & 0x7fffffffu); }); }
inline Vec larger_bits(Vec a, Vec b) {  // of magnitudes
  return each([&](int i) { return bits_of(a.lane[i]) > bits_of(b.lane[i]) ? a.lane[i] : b.lane[i]; });
}
inline bool any_above(Vec a, Vec limit) {
  bool any = false;
  for (int i = 0; i < kLanes; ++i) any |= a.lane[i] > limit.lane[i];
  return any;
}
inline void store_codes(int8_t* p, Vec a) {
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<int8_t>(a.lane[i]);
}

inline Vec in_register(Vec a) { return a; }

inline void prefetch(const void* p) { W8A16_PREFETCH(p); }

// Codes of kBlockChannels x kBlockDepth, transposed and widened: panel[d * panel_stride + c] = q[c][d].
constexpr int kBlockChannels = 4;
constexpr int kBlockDepth = 1;
inline void transpose_codes(const int8_t* q, int64_t stride, float* panel, int64_t) {
  for (int c = 0; c < kBlockChannels; ++c) panel[c] = static_cast<float>(q[c * stride]);
}

// Four rows of four floats: to[c * to_stride + r] = from[r * from_stride + c].
inline void transpose_floats(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  for (int c = 0; c < 4; ++c)
    for (int r = 0; r < 4; ++r) to[c * to_stride + r] = from[r * from_stride + c];
}

}  // namespace
