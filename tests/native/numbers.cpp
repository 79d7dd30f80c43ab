#include "numbers.h"

#include <string.h>

#include <algorithm>
#include <cmath>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace native_test {

namespace {

struct Format {
  int fraction, exponent;  // bits
  int bias() const { return (1 << (exponent - 1)) - 1; }
  int smallest() const { return 1 - bias() - fraction; }  // the exponent of the smallest subnormal
};

Format format_of(Float dtype) {
  if (dtype == Float::f32) return {23, 8};
  return dtype == Float::bf16 ? Format{7, 8} : Format{10, 5};
}

}  // namespace

const char* name_of(Float dtype) { return dtype == Float::f32 ? "f32" : dtype == Float::bf16 ? "bf16" : "f16"; }

double unit_roundoff(Float dtype) { return std::ldexp(1.0, -format_of(dtype).fraction - 1); }
double smallest_subnormal(Float dtype) { return std::ldexp(1.0, format_of(dtype).smallest()); }

uint32_t encode(double value, Float dtype) {
  const Format f = format_of(dtype);
  const uint32_t sign = static_cast<uint32_t>(std::signbit(value)) << (f.fraction + f.exponent);
  const uint32_t infinity = ((1u << f.exponent) - 1) << f.fraction;
  if (std::isnan(value)) return sign | infinity | 1u << (f.fraction - 1);
  const double size = std::fabs(value);
  if (std::isinf(size)) return sign | infinity;
  if (size == 0) return sign;
  // One unit in the last place of values of this size; then a whole number of units, which nearbyint
  // rounds to even. A carry into the exponent, and past the largest value, comes out by itself.
  const int unit = std::max(std::ilogb(size) - f.fraction, f.smallest());
  const double units = std::nearbyint(std::ldexp(size, -unit));
  const uint32_t pattern = static_cast<uint32_t>(units) + (static_cast<uint32_t>(unit - f.smallest()) << f.fraction);
  return sign | (pattern < infinity ? pattern : infinity);
}

namespace {

double decode_by_fields(uint32_t pattern, Float dtype) {
  const Format f = format_of(dtype);
  const uint32_t fraction = pattern & ((1u << f.fraction) - 1);
  const uint32_t exponent = pattern >> f.fraction & ((1u << f.exponent) - 1);
  const double sign = pattern >> (f.fraction + f.exponent) & 1 ? -1.0 : 1.0;
  if (exponent == (1u << f.exponent) - 1) return fraction != 0 ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(fraction, f.smallest());
  return sign * std::ldexp(fraction + (1u << f.fraction), f.smallest() + static_cast<int>(exponent) - 1);
}

}  // namespace

double decode(uint32_t pattern, Float dtype) {
  if (dtype != Float::f16) {  // float32 is the machine's own, and bfloat16 its upper half
    const uint32_t word = dtype == Float::f32 ? pattern : pattern << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
  }
  static const std::vector<double> table = [] {
    std::vector<double> all(65536);
    for (uint32_t i = 0; i < 65536; ++i) all[i] = decode_by_fields(i, Float::f16);
    return all;
  }();
  return table[pattern & 0xffff];
}

void put(void* buffer, int64_t index, Float dtype, uint32_t pattern) {
  const uint16_t half = static_cast<uint16_t>(pattern);
  char* p = static_cast<char*>(buffer) + index * w8a16::bytes_of(dtype);
  if (dtype == Float::f32) memcpy(p, &pattern, 4);
  else memcpy(p, &half, 2);
}

uint32_t get(const void* buffer, int64_t index, Float dtype) {
  uint32_t word;
  uint16_t half;
  const char* p = static_cast<const char*>(buffer) + index * w8a16::bytes_of(dtype);
  if (dtype == Float::f32) return memcpy(&word, p, 4), word;
  return memcpy(&half, p, 2), half;
}

Bytes bytes_of(const double* values, int64_t count, Float dtype) {
  Bytes bytes(static_cast<size_t>(count * w8a16::bytes_of(dtype)));
  for (int64_t i = 0; i < count; ++i) put(bytes.data(), i, dtype, encode(values[i], dtype));
  return bytes;
}

bool set_flush_to_zero(bool on) {
#if defined(__x86_64__)
  const unsigned modes = 0x8040;  // flush-to-zero, denormals-are-zero
  _mm_setcsr(on ? _mm_getcsr() | modes : _mm_getcsr() & ~modes);
  return true;
#elif defined(__aarch64__)
  uint64_t control;
  __asm__ volatile("mrs %0, fpcr" : "=r"(control));
  control = on ? control | 1u << 24 : control & ~(uint64_t{1} << 24);
  __asm__ volatile("msr fpcr, %0" : : "r"(control));
  return true;
#else
  (void)on;
  return false;
#endif
}

}  // namespace native_test
