// One linear problem with its data and its exact answer, and one run of a kernel on it.

#pragma once

#include <vector>

#include "harness.h"
#include "kernels.h"
#include "memory.h"
#include "numbers.h"
#include "shapes.h"

namespace native_test {

// How the problem looks beside its shape. A stride is the row's length plus the extra elements.
struct Layout {
  Float dtype, scales_dtype, bias_dtype;
  bool bias;
  int64_t x_extra, q_extra, y_extra;
};

// A layout that depends on `turn`, so that a run over many shapes meets all combinations.
Layout layout_for(Float dtype, int64_t turn);

struct LinearCase {
  Shape shape;
  Layout layout;
  Bytes x, q, scales, bias;          // as the kernel reads them; gaps between rows read as NaN or -1
  std::vector<double> y, tolerance;  // [m, n]; a tolerance of zero asks for the very bits

  int64_t x_stride() const { return shape.k + layout.x_extra; }
  int64_t q_stride() const { return shape.k + layout.q_extra; }
  int64_t y_stride() const { return shape.n + layout.y_extra; }
};

// Random data; the exact answer in double, and the bound of NUMERICS: with A = s (|x| . |q|), n = K + 2,
// g = n u32 / (1 - n u32): g (A + |b|) + u (1 + g) |y| + u g (A + |b|) + half a smallest subnormal.
LinearCase random_case(const Shape& shape, const Layout& layout, Random& random);
// Small integers and powers of two: no sum exceeds what the output type holds exactly.
LinearCase integer_case(const Shape& shape, const Layout& layout, Random& random);

// The buffers of a run, kept between runs.
struct LinearBuffers {
  Watched x, q, scales, bias, y;
};

// Runs the kernel with every buffer placed so, and checks every output, the gaps between rows, the
// surroundings of every buffer, and that no input was written.
void run_linear(Group& group, const w8a16::Variant& variant, const LinearCase& c, bool wide, Placement placement,
                LinearBuffers& buffers);

// That a reference can tell right from wrong: its norm is not zero, fewer than 30 % of it are zeros, and the
// tolerances are below the largest value.
void check_reference(Group& group, const std::vector<double>& y, const std::vector<double>& tolerance,
                     const char* description);

// What outputs hold before a kernel runs: whatever it does not write still reads so.
constexpr unsigned char kUnwritten = 0xa5;

// Compares rows x columns outputs, and asks that the gaps between rows are unwritten.
void compare_outputs(Group& group, const void* y, int64_t rows, int64_t columns, int64_t stride, Float dtype,
                     const std::vector<double>& expected, const std::vector<double>& tolerance,
                     const char* description);

// The bytes of a matrix whose rows lie `stride` elements apart; gaps are 0xff, and the last row has none.
Bytes matrix_bytes(const std::vector<double>& values, int64_t rows, int64_t columns, int64_t stride, Float dtype);
Bytes codes_bytes(const std::vector<int8_t>& values, int64_t rows, int64_t columns, int64_t stride);
int64_t extent(int64_t rows, int64_t columns, int64_t stride);  // elements of such a matrix

}  // namespace native_test
