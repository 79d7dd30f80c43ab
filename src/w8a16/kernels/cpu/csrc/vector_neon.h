// Vector primitives: NEON on 64-bit ARM, four float32 lanes. Memory is loaded as bytes, which need no
// alignment, and reinterpreted.

#pragma once

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "compiler.h"

namespace {

constexpr int kLanes = 4;
// Register tiles of at most 18 sums: with 24 of the 32 registers, GCC 12 puts some sums on the stack.
constexpr int kRowsWide = 4;  // wide kernel: 4 rows x 4 vectors
constexpr int kVectorsWide = 4;
constexpr int kRowsNarrow = 6;  // narrow kernel, by rows
constexpr int kChannelsNarrow[kRowsNarrow] = {8, 8, 6, 4, 4, 3};

using Vec = float32x4_t;

inline Vec zero() { return vdupq_n_f32(0.0f); }
inline Vec splat(float a) { return vdupq_n_f32(a); }
inline Vec load(const float* p) { return vreinterpretq_f32_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(p))); }
inline void store(float* p, Vec a) { vst1q_u8(reinterpret_cast<uint8_t*>(p), vreinterpretq_u8_f32(a)); }
inline Vec add(Vec a, Vec b) { return vaddq_f32(a, b); }
inline Vec mul(Vec a, Vec b) { return vmulq_f32(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }

inline Vec load_first(const float* p, int count) {
  float lanes[kLanes] = {};
  memcpy(lanes, p, sizeof(float) * static_cast<size_t>(count));
  return load(lanes);
}
inline void store_first(float* p, Vec a, int count) { memcpy(p, &a, sizeof(float) * static_cast<size_t>(count)); }

inline Vec load_codes_first(const int8_t* p, int count) {
  uint64_t bytes = 0;
  memcpy(&bytes, p, static_cast<size_t>(count));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(bytes)))));
}
inline Vec load_codes(const int8_t* p) { return load_codes_first(p, kLanes); }

inline uint16x4_t load_halves(const uint16_t* p) {
  return vreinterpret_u16_u8(vld1_u8(reinterpret_cast<const uint8_t*>(p)));
}
inline void store_halves(uint16_t* p, uint16x4_t a) {
  vst1_u8(reinterpret_cast<uint8_t*>(p), vreinterpret_u8_u16(a));
}
inline Vec load_bf16(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(load_halves(p), 16)); }
inline Vec load_f16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(load_halves(p))); }
inline void store_bf16(uint16_t* p, Vec a) {
  const uint32x4_t bits = vreinterpretq_u32_f32(a);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  store_halves(p, vshrn_n_u32(vbslq_u32(vceqq_f32(a, a), rounded, quiet), 16));
}
inline void store_f16(uint16_t* p, Vec a) { store_halves(p, vreinterpret_u16_f16(vcvt_f16_f32(a))); }

inline float sum_lanes(Vec a) { return vaddvq_f32(a); }

// For quantization: see vector_avx2.h.
inline Vec round_even(Vec a) { return vrndnq_f32(a); }
inline Vec divide(Vec a, Vec b) { return vdivq_f32(a, b); }
inline Vec magnitude(Vec a) { return vabsq_f32(a); }
inline Vec larger_bits(Vec a, Vec b) {
  return vreinterpretq_f32_s32(vmaxq_s32(vreinterpretq_s32_f32(a), vreinterpretq_s32_f32(b)));
}
inline bool any_above(Vec a, Vec limit) { return vmaxvq_u32(vcgtq_f32(a, limit)) != 0; }
inline void store_codes(int8_t* p, Vec a) {
  const int16x4_t words = vmovn_s32(vcvtq_s32_f32(a));
  const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
  memcpy(p, &bytes, kLanes);
}

inline Vec in_register(Vec a) {
  W8A16_HOLD(a, "w");
  return a;
}

inline void prefetch(const void* p) { W8A16_PREFETCH(p); }

constexpr int kBlockChannels = 4;
constexpr int kBlockDepth = 16;

// Codes of kBlockChannels x kBlockDepth, transposed and widened: panel[d * panel_stride + c] = q[c][d].
// They are transposed as 32-bit units, four codes each, and then widened code by code.
inline void transpose_codes(const int8_t* q, int64_t stride, float* panel, int64_t panel_stride) {
  int32x4_t r[4];
  W8A16_UNROLL
  for (int c = 0; c < 4; ++c) r[c] = vreinterpretq_s32_s8(vld1q_s8(q + c * stride));
  const int32x4x2_t even = vtrnq_s32(r[0], r[1]), odd = vtrnq_s32(r[2], r[3]);
  r[0] = vcombine_s32(vget_low_s32(even.val[0]), vget_low_s32(odd.val[0]));
  r[1] = vcombine_s32(vget_low_s32(even.val[1]), vget_low_s32(odd.val[1]));
  r[2] = vcombine_s32(vget_high_s32(even.val[0]), vget_high_s32(odd.val[0]));
  r[3] = vcombine_s32(vget_high_s32(even.val[1]), vget_high_s32(odd.val[1]));
  W8A16_UNROLL
  for (int unit = 0; unit < 4; ++unit) {
    float* to = panel + 4 * unit * panel_stride;
    store(to, vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(r[unit], 24), 24)));
    store(to + panel_stride, vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(r[unit], 16), 24)));
    store(to + 2 * panel_stride, vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(r[unit], 8), 24)));
    store(to + 3 * panel_stride, vcvtq_f32_s32(vshrq_n_s32(r[unit], 24)));
  }
}

// Four rows of four floats: to[c * to_stride + r] = from[r * from_stride + c].
inline void transpose_floats(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  const float32x4x2_t even = vtrnq_f32(vld1q_f32(from), vld1q_f32(from + from_stride));
  const float32x4x2_t odd = vtrnq_f32(vld1q_f32(from + 2 * from_stride), vld1q_f32(from + 3 * from_stride));
  vst1q_f32(to, vcombine_f32(vget_low_f32(even.val[0]), vget_low_f32(odd.val[0])));
  vst1q_f32(to + to_stride, vcombine_f32(vget_low_f32(even.val[1]), vget_low_f32(odd.val[1])));
  vst1q_f32(to + 2 * to_stride, vcombine_f32(vget_high_f32(even.val[0]), vget_high_f32(odd.val[0])));
  vst1q_f32(to + 3 * to_stride, vcombine_f32(vget_high_f32(even.val[1]), vget_high_f32(odd.val[1])));
}

}  // namespace
