// Included before variant_avx512.cpp in the mode `avx512-emulated`: every AVX-512 intrinsic becomes portable
// code of SIMDe, so that the variant's logic runs on a machine without AVX-512. Not a test of the
// instructions themselves, nor of speed.

#pragma once

#include <stdint.h>
#include <string.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include "compiler.h"

// Emulated vectors are no registers.
#undef W8A16_HOLD
#define W8A16_HOLD(vector, kind) static_cast<void>(vector)

// What SIMDe 0.7.4 lacks, lane by lane.
namespace by_simde {

template <class T>
struct Lanes16 {
  T lane[16];
};
template <class T, class Vector>
Lanes16<T> lanes_of(const Vector& vector) {
  static_assert(sizeof(Lanes16<T>) == sizeof(Vector), "sixteen lanes");
  Lanes16<T> lanes;
  memcpy(&lanes, &vector, sizeof lanes);
  return lanes;
}
template <class Vector, class T>
Vector vector_of(const Lanes16<T>& lanes) {
  static_assert(sizeof(Lanes16<T>) == sizeof(Vector), "sixteen lanes");
  Vector vector;
  memcpy(&vector, &lanes, sizeof lanes);
  return vector;
}
// Each lane converted by a function of its value.
template <class To, class From, class Result, class Vector, class Convert>
Result each(const Vector& vector, Convert convert) {
  const Lanes16<From> from = lanes_of<From>(vector);
  Lanes16<To> to;
  for (int i = 0; i < 16; ++i) to.lane[i] = static_cast<To>(convert(from.lane[i]));
  return vector_of<Result>(to);
}
// Copies the elements of a mask and touches no others.
template <class T>
void copy_masked(uint32_t mask, T* to, const void* from) {
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) memcpy(to + i, static_cast<const char*>(from) + i * static_cast<int>(sizeof(T)), sizeof(T));
}

inline simde__m512 maskz_loadu_ps(uint16_t mask, const void* memory) {
  Lanes16<float> lanes = {};
  copy_masked(mask, lanes.lane, memory);
  return vector_of<simde__m512>(lanes);
}
inline void mask_storeu_ps(void* memory, uint16_t mask, simde__m512 vector) {
  const Lanes16<float> lanes = lanes_of<float>(vector);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) memcpy(static_cast<char*>(memory) + 4 * i, &lanes.lane[i], 4);
}
inline __m128i maskz_loadu_epi8(uint16_t mask, const void* memory) {
  Lanes16<int8_t> lanes = {};
  copy_masked(mask, lanes.lane, memory);
  return vector_of<__m128i>(lanes);
}
inline simde__m512i cvtepi8_epi32(__m128i a) {
  return each<int32_t, int8_t, simde__m512i>(a, [](int8_t v) { return v; });
}
inline simde__m512i cvtepu16_epi32(__m256i a) {
  return each<int32_t, uint16_t, simde__m512i>(a, [](uint16_t v) { return v; });
}
inline simde__m512 cvtepi32_ps(simde__m512i a) {
  return each<float, int32_t, simde__m512>(a, [](int32_t v) { return v; });
}
inline simde__m512i cvtps_epi32(simde__m512 a) {
  return each<int32_t, float, simde__m512i>(a, [](float v) { return _mm_cvtss_si32(_mm_set_ss(v)); });
}
inline __m256i cvtepi32_epi16(simde__m512i a) {
  return each<int16_t, int32_t, __m256i>(a, [](int32_t v) { return v; });
}
inline __m128i cvtepi32_epi8(simde__m512i a) {
  return each<int8_t, int32_t, __m128i>(a, [](int32_t v) { return v; });
}
inline simde__m512 cvtph_ps(__m256i a) {
  return each<float, uint16_t, simde__m512>(a, [](uint16_t v) { return _cvtsh_ss(v); });
}
inline __m256i cvtps_ph(simde__m512 a) {
  return each<uint16_t, float, __m256i>(a, [](float v) { return _cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT); });
}
inline __m256 upper_half(simde__m512 a) {
  __m256 half;
  memcpy(&half, reinterpret_cast<const char*>(&a) + 32, 32);
  return half;
}

}  // namespace by_simde

#undef _mm512_cvtps_ph
#undef _mm512_extractf32x8_ps
#define _mm512_maskz_loadu_ps by_simde::maskz_loadu_ps
#define _mm512_mask_storeu_ps by_simde::mask_storeu_ps
#define _mm_maskz_loadu_epi8 by_simde::maskz_loadu_epi8
#define _mm512_cvtepi8_epi32 by_simde::cvtepi8_epi32
#define _mm512_cvtepu16_epi32 by_simde::cvtepu16_epi32
#define _mm512_cvtepi32_ps by_simde::cvtepi32_ps
#define _mm512_cvtps_epi32 by_simde::cvtps_epi32
#define _mm512_cvtepi32_epi16 by_simde::cvtepi32_epi16
#define _mm512_cvtepi32_epi8 by_simde::cvtepi32_epi8
#define _mm512_cvtph_ps by_simde::cvtph_ps
#define _mm512_cvtps_ph(vector, rounding) by_simde::cvtps_ph(vector)
#define _mm512_extractf32x8_ps(vector, half) by_simde::upper_half(vector)
