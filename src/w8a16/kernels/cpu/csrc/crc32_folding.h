// CRC-32 by carry-less multiplication: 64 bytes a step, for processors with PCLMULQDQ.
//
// Four times 128 bits are held; a step multiplies each by x^512 modulo the polynomial, which moves it past
// the 64 bytes that are added. Source: V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using
// PCLMULQDQ Instruction", Intel 2009; the constants are its table for this polynomial, reflected.

#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <wmmintrin.h>

#define W8A16_CARRYLESS_MULTIPLY

namespace {

inline __m128i load_128(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

// `a` moved forward, and `next` added: the two halves of `by` are the powers of x for those of `a`.
inline __m128i fold(__m128i a, __m128i by, __m128i next) {
  const __m128i low = _mm_clmulepi64_si128(a, by, 0x00), high = _mm_clmulepi64_si128(a, by, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

// The CRC register after `bytes`, a multiple of 16 and at least 64.
uint32_t crc32_by_folding(uint32_t crc, const uint8_t* p, int64_t bytes) {
  const __m128i by_512 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);  // x^(512-32), x^(512+32)
  const __m128i by_128 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);  // x^(128-32), x^(128+32)
  const __m128i by_64 = _mm_set_epi64x(0, 0x0163cd6124);              // x^64
  const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);  // floor(x^64 / P), P
  const __m128i low_32 = _mm_set_epi32(0, -1, 0, -1);
  __m128i a = _mm_xor_si128(load_128(p), _mm_cvtsi32_si128(static_cast<int>(crc)));
  __m128i b = load_128(p + 16), c = load_128(p + 32), d = load_128(p + 48);
  for (p += 64, bytes -= 64; bytes >= 64; p += 64, bytes -= 64) {
    a = fold(a, by_512, load_128(p));
    b = fold(b, by_512, load_128(p + 16));
    c = fold(c, by_512, load_128(p + 32));
    d = fold(d, by_512, load_128(p + 48));
  }
  a = fold(fold(fold(a, by_128, b), by_128, c), by_128, d);
  for (; bytes >= 16; p += 16, bytes -= 16) a = fold(a, by_128, load_128(p));
  // 128 bits to 96, to 64, and by Barrett's reduction to 32.
  a = _mm_xor_si128(_mm_srli_si128(a, 8), _mm_clmulepi64_si128(a, by_128, 0x10));
  a = _mm_xor_si128(_mm_srli_si128(a, 4), _mm_clmulepi64_si128(_mm_and_si128(a, low_32), by_64, 0x00));
  __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(a, low_32), barrett, 0x10);
  quotient = _mm_clmulepi64_si128(_mm_and_si128(quotient, low_32), barrett, 0x00);
  return static_cast<uint32_t>(_mm_extract_epi32(_mm_xor_si128(a, quotient), 1));
}

}  // namespace
