// dx = (dy * scales) q, on every shape, layout and placement.

#include <stdio.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <string>

#include "linear_case.h"
#include "tests.h"

namespace native_test {

namespace {

struct GradCase {
  Shape shape;
  Float dtype, scales_dtype;
  int64_t dy_stride, q_stride, dx_stride;
  Bytes dy, q, scales;
  std::vector<double> dx, tolerance;  // [m, k]
};

// Exact: dy in -2..2, codes and scales so small that no sum leaves what the type holds exactly.
GradCase grad_case(const Shape& s, Float dtype, int64_t turn, bool exact, Random& random) {
  GradCase c;
  c.shape = s;
  c.dtype = dtype;
  c.scales_dtype = turn % 4 != 3 ? Float::f32 : kFloats[1 + turn / 4 % 2];
  c.dy_stride = s.n + (turn % 5 == 1 ? 3 : 0);
  c.q_stride = s.k + (turn % 3 == 1 ? 5 : 0);
  c.dx_stride = s.k + (turn % 4 == 2 ? 7 : 0);
  // At most so many rows of q count in exact cases (the last, the first, and some between).
  const int64_t limit = dtype == Float::f32 ? 1 << 22 : dtype == Float::f16 ? 1000 : 120;
  const int64_t code = !exact ? 127 : dtype == Float::bf16 ? 7 : 31, most = std::min(s.n, limit / (2 * code));
  std::vector<double> dy(static_cast<size_t>(s.m * s.n), 0.0), scales;
  std::vector<int8_t> q;
  for (int64_t m = 0; m < s.m; ++m)
    for (int64_t i = 0; i < (exact ? most : s.n); ++i) {
      const int64_t at = !exact ? i : i == 0 ? s.n - 1 : i == 1 ? 0 : most == s.n ? i - 1 : random.below(s.n);
      dy[static_cast<size_t>(m * s.n + at)] =
          exact ? (random.below(2) != 0 ? 1 : -1) : rounded(random.normal(), dtype);
    }
  for (int64_t i = 0; i < s.n * s.k; ++i) {
    const int64_t size = random.between(1, code);
    q.push_back(static_cast<int8_t>(random.below(2) != 0 ? size : -size));
  }
  for (int64_t n = 0; n < s.n; ++n)
    scales.push_back(exact ? static_cast<double>(random.between(1, 2)) / 2
                           : rounded(0.001 + 0.02 * random.uniform(), c.scales_dtype));
  c.dy = matrix_bytes(dy, s.m, s.n, c.dy_stride, dtype);
  c.q = codes_bytes(q, s.n, s.k, c.q_stride);
  c.scales = bytes_of(scales.data(), s.n, c.scales_dtype);

  const double steps = static_cast<double>(s.n) + 2, g = steps * 0x1p-24 / (1 - steps * 0x1p-24);
  const double u = unit_roundoff(dtype), half_a_step = smallest_subnormal(dtype) / 2;
  std::vector<double> sum(static_cast<size_t>(s.k)), size(sum.size());
  for (int64_t m = 0; m < s.m; ++m) {
    std::fill(sum.begin(), sum.end(), 0.0);
    std::fill(size.begin(), size.end(), 0.0);
    for (int64_t n = 0; n < s.n; ++n) {
      const double factor = dy[static_cast<size_t>(m * s.n + n)] * scales[static_cast<size_t>(n)];
      const int8_t* row = q.data() + n * s.k;
      for (size_t k = 0; k < sum.size(); ++k) {
        sum[k] += factor * row[k];
        size[k] += std::fabs(factor * row[k]);
      }
    }
    for (size_t k = 0; k < sum.size(); ++k) {
      c.dx.push_back(sum[k]);
      c.tolerance.push_back(exact ? 0.0
                                  : g * size[k] + u * (1 + g) * std::fabs(sum[k]) + u * g * size[k] + half_a_step);
    }
  }
  return c;
}

struct GradBuffers {
  Watched dy, q, scales, dx;
};

void run_grad(Group& group, const w8a16::Variant& variant, const GradCase& c, Placement placement, GradBuffers& b) {
  const Shape& s = c.shape;
  char description[200];
  snprintf(description, sizeof description, "m %lld k %lld n %lld, strides %lld %lld %lld, %s",
           static_cast<long long>(s.m), static_cast<long long>(s.k), static_cast<long long>(s.n),
           static_cast<long long>(c.dy_stride), static_cast<long long>(c.q_stride),
           static_cast<long long>(c.dx_stride), name_of(placement));
  now_running("%s input gradient: %s", variant.name, description);
  const Bytes unwritten(static_cast<size_t>(extent(s.m, s.k, c.dx_stride) * w8a16::bytes_of(c.dtype)), kUnwritten);
  w8a16::LinearInputGrad p = {};
  p.dy = b.dy.place(c.dy, placement);
  p.dy_stride = c.dy_stride;
  p.q = static_cast<const int8_t*>(b.q.place(c.q, placement));
  p.q_stride = c.q_stride;
  p.scales = {b.scales.place(c.scales, placement), c.scales_dtype};
  p.dx = b.dx.place(unwritten, false, placement);
  p.dx_stride = c.dx_stride;
  p.m = s.m, p.k = s.k, p.n = s.n;
  p.dtype = c.dtype;
  const bool done = variant.linear_input_grad(p);
  compare_outputs(group, b.dx.data(), s.m, s.k, c.dx_stride, c.dtype, c.dx, c.tolerance, description);
  group.check(done && b.dy.content_is(c.dy) && b.q.content_is(c.q) && b.scales.content_is(c.scales) &&
                  b.dy.surroundings_intact() && b.q.surroundings_intact() && b.scales.surroundings_intact() &&
                  b.dx.surroundings_intact() && workspace_intact(),
              "%s: written outside of the output", description);
}

void sweep(const Variants& variants, Float dtype, const char* what, const std::vector<Shape>& shapes, bool exact) {
  std::deque<Group> groups;
  for (const w8a16::Variant* v : variants)
    groups.emplace_back(std::string(v->name) + " input gradient " + name_of(dtype) + ", " + what);
  Random random(3);
  GradBuffers buffers;
  const WatchedWorkspace workspace;
  int64_t turn = 0;
  for (const Shape& shape : shapes) {
    const GradCase c = grad_case(shape, dtype, ++turn, exact, random);
    for (size_t i = 0; i < variants.size(); ++i) {
      if (shape.n > 0) check_reference(groups[i], c.dx, c.tolerance, "input gradient");
      run_grad(groups[i], *variants[i], c, static_cast<Placement>(turn % 4), buffers);
      if (shape.m * shape.k * shape.n <= 20000 && !options.quick)
        run_grad(groups[i], *variants[i], c, static_cast<Placement>((turn + 1) % 4), buffers);
    }
  }
}

// The edges of the wide algorithm, where the outputs are K and the depth is N.
std::vector<Shape> turned(std::vector<Shape> shapes) {
  for (Shape& s : shapes) std::swap(s.k, s.n);
  return shapes;
}

}  // namespace

void test_input_grad(const Variants& variants) {
  for (Float dtype : kFloats) {
    sweep(variants, dtype, "listed shapes", listed_shapes(), false);
    sweep(variants, dtype, "block edges", turned(wide_edges()), false);
    sweep(variants, dtype, "integers, to the bit", listed_shapes(), true);
    sweep(variants, dtype, "integers at block edges, to the bit", turned(wide_edges()), true);
  }
}

}  // namespace native_test
