// Float types by the book: every value as an exact double, every rounding done in double. Nothing here
// shares code with the kernels.

#pragma once

#include <stdint.h>

#include "kernels.h"
#include "memory.h"

namespace native_test {

using w8a16::Float;

constexpr Float kFloats[] = {Float::f32, Float::bf16, Float::f16};
const char* name_of(Float dtype);

double unit_roundoff(Float dtype);
double smallest_subnormal(Float dtype);

// The pattern of the nearest value, ties to even; beyond the range infinity; NaN a quiet NaN.
uint32_t encode(double value, Float dtype);
double decode(uint32_t pattern, Float dtype);
inline double rounded(double value, Float dtype) { return decode(encode(value, dtype), dtype); }

// Elements of a buffer, at any address.
void put(void* buffer, int64_t index, Float dtype, uint32_t pattern);
uint32_t get(const void* buffer, int64_t index, Float dtype);

Bytes bytes_of(const double* values, int64_t count, Float dtype);

// The flush-to-zero mode of the processor, for inputs and outputs; false where this is unknown.
bool set_flush_to_zero(bool on);

}  // namespace native_test
