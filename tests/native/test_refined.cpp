// Weights in groups and with outliers, by both algorithms and backwards: shapes, placements, slices, threads.

#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "linear_case.h"
#include "parallel_ops.h"
#include "stand_in_threads.h"
#include "tests.h"
#include "variants.h"

namespace native_test {

namespace {

struct Refining {
  int64_t groups, group, outliers;
};

struct RefinedCase {
  Shape shape;
  Layout layout;
  Refining refining;
  Bytes x, q, scales, bias, columns, values, dy;
  std::vector<double> y, y_tolerance, dx, dx_tolerance;

  int64_t x_stride() const { return shape.k + layout.x_extra; }
  int64_t q_stride() const { return shape.k + layout.q_extra; }
  int64_t y_stride() const { return shape.n + layout.y_extra; }
  int64_t dx_stride() const { return shape.k + layout.y_extra; }
};

double tolerance_of(double terms, double sum, double size, Float dtype) {
  const double g = terms * 0x1p-24 / (1 - terms * 0x1p-24), u = unit_roundoff(dtype);
  return g * size + u * (1 + g) * std::fabs(sum) + u * g * size + smallest_subnormal(dtype) / 2;
}

// Exact: ones for activations, of which few are not zero, and small integers for all else.
RefinedCase refined_case(int64_t m, int64_t n, const Refining& r, Float dtype, int64_t turn, bool exact,
                         Random& random) {
  RefinedCase c;
  const int64_t k = r.groups * r.group;
  c.shape = {m, k, n};
  c.layout = layout_for(dtype, turn);
  c.refining = r;
  const auto sign = [&] { return random.below(2) != 0 ? 1.0 : -1.0; };
  const int64_t most = dtype == Float::f32 ? 4096 : dtype == Float::f16 ? 64 : 8;  // ones in a row
  const auto activations = [&](int64_t width) {
    std::vector<double> rows(static_cast<size_t>(m * width), 0.0);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < width; ++j)
        if (!exact) rows[static_cast<size_t>(i * width + j)] = rounded(random.normal(), dtype);
        else if (width <= most || j == 0 || j == width - 1 || random.below(width) < most - 2)
          rows[static_cast<size_t>(i * width + j)] = sign();
    return rows;
  };
  const std::vector<double> x = activations(k), dy = activations(n);
  std::vector<double> scales, bias, values, weights(static_cast<size_t>(n * k)), sizes(weights.size());
  std::vector<int8_t> q;
  std::vector<int32_t> columns;
  for (int64_t i = 0; i < n * r.groups; ++i)
    scales.push_back(exact ? static_cast<double>(random.between(1, 2)) / 2
                           : rounded(0.001 + 0.02 * random.uniform(), Float::f32));
  for (int64_t i = 0; i < n; ++i) {
    bias.push_back(!c.layout.bias ? 0 : exact ? static_cast<double>(random.between(-9, 9)) / 2
                                              : rounded(random.normal(), c.layout.bias_dtype));
    for (int64_t j = 0; j < k; ++j) {
      const int64_t code = exact ? random.between(-7, 7) : random.between(-128, 127);
      q.push_back(static_cast<int8_t>(code));
      const size_t at = static_cast<size_t>(i * k + j);
      weights[at] = static_cast<double>(code) * scales[static_cast<size_t>(i * r.groups + j / r.group)];
      sizes[at] = std::fabs(weights[at]);
    }
    for (int64_t o = 0; o < r.outliers; ++o) {  // the last column, the first, and others; one may come twice
      const int64_t column = o == 0 ? k - 1 : o == 1 ? 0 : random.below(k);
      const double value = exact ? sign() * static_cast<double>(random.between(1, 9)) / 2
                                 : rounded(random.normal(), Float::f32);
      columns.push_back(static_cast<int32_t>(column));
      values.push_back(value);
      weights[static_cast<size_t>(i * k + column)] += value;
      sizes[static_cast<size_t>(i * k + column)] += std::fabs(value);
    }
  }
  c.x = matrix_bytes(x, m, k, c.x_stride(), dtype);
  c.dy = matrix_bytes(dy, m, n, n, dtype);
  c.q = codes_bytes(q, n, k, c.q_stride());
  c.scales = bytes_of(scales.data(), n * r.groups, Float::f32);
  if (c.layout.bias) c.bias = bytes_of(bias.data(), n, c.layout.bias_dtype);
  c.values = bytes_of(values.data(), n * r.outliers, Float::f32);
  c.columns.resize(columns.size() * sizeof(int32_t));
  if (!columns.empty()) memcpy(c.columns.data(), columns.data(), c.columns.size());

  for (int64_t i = 0; i < m; ++i) {
    std::vector<double> dx(static_cast<size_t>(k), 0.0), dx_size(dx.size(), 0.0);
    for (int64_t j = 0; j < n; ++j) {
      double sum = bias[static_cast<size_t>(j)], size = std::fabs(sum);
      const double gradient = dy[static_cast<size_t>(i * n + j)];
      for (size_t l = 0, at = static_cast<size_t>(j * k); l < dx.size(); ++l, ++at) {
        const double value = x[static_cast<size_t>(i * k) + l];
        sum += value * weights[at];
        size += std::fabs(value) * sizes[at];
        dx[l] += gradient * weights[at];
        dx_size[l] += std::fabs(gradient) * sizes[at];
      }
      c.y.push_back(sum);
      c.y_tolerance.push_back(exact ? 0 : tolerance_of(static_cast<double>(k + r.outliers + 2), sum, size, dtype));
    }
    for (size_t l = 0; l < dx.size(); ++l) {
      c.dx.push_back(dx[l]);
      c.dx_tolerance.push_back(
          exact ? 0 : tolerance_of(static_cast<double>(n * (1 + r.outliers) + 2), dx[l], dx_size[l], dtype));
    }
  }
  return c;
}

struct RefinedBuffers {
  Watched x, q, scales, bias, columns, values, y;

  bool inputs_are(const RefinedCase& c, const Bytes& rows) const {
    return x.content_is(rows) && q.content_is(c.q) && scales.content_is(c.scales) && columns.content_is(c.columns) &&
           values.content_is(c.values) && x.surroundings_intact() && q.surroundings_intact() &&
           scales.surroundings_intact() && columns.surroundings_intact() && values.surroundings_intact() &&
           y.surroundings_intact();
  }
};

w8a16::Refinement refinement_of(const RefinedCase& c, Placement placement, RefinedBuffers& b) {
  const void* columns = b.columns.place(c.columns, placement);
  const void* values = b.values.place(c.values, placement);
  return {c.refining.groups, c.refining.group, static_cast<const int32_t*>(columns),
          static_cast<const float*>(values), c.refining.outliers, 0};
}

Bytes unwritten(int64_t rows, int64_t columns, int64_t stride, Float dtype) {
  return Bytes(static_cast<size_t>(extent(rows, columns, stride) * w8a16::bytes_of(dtype)), kUnwritten);
}

w8a16::Refined<w8a16::Linear> forward_problem(const RefinedCase& c, Placement placement, RefinedBuffers& b) {
  w8a16::Refined<w8a16::Linear> refined = {};
  w8a16::Linear& p = refined.all;
  const Float dtype = c.layout.dtype;
  p.m = c.shape.m, p.k = c.shape.k, p.n = c.shape.n, p.dtype = dtype;
  p.x = b.x.place(c.x, placement), p.x_stride = c.x_stride();
  p.q = static_cast<const int8_t*>(b.q.place(c.q, placement)), p.q_stride = c.q_stride();
  p.scales = {b.scales.place(c.scales, placement), Float::f32};
  p.bias = {c.layout.bias ? b.bias.place(c.bias, placement) : nullptr, c.layout.bias_dtype};
  p.y = b.y.place(unwritten(p.m, p.n, c.y_stride(), dtype), false, placement), p.y_stride = c.y_stride();
  refined.refinement = refinement_of(c, placement, b);
  return refined;
}

w8a16::Refined<w8a16::LinearInputGrad> backward_problem(const RefinedCase& c, Placement placement,
                                                        RefinedBuffers& b) {
  w8a16::Refined<w8a16::LinearInputGrad> refined = {};
  w8a16::LinearInputGrad& p = refined.all;
  const Float dtype = c.layout.dtype;
  p.m = c.shape.m, p.k = c.shape.k, p.n = c.shape.n, p.dtype = dtype;
  p.dy = b.x.place(c.dy, placement), p.dy_stride = p.n;
  p.q = static_cast<const int8_t*>(b.q.place(c.q, placement)), p.q_stride = c.q_stride();
  p.scales = {b.scales.place(c.scales, placement), Float::f32};
  p.dx = b.y.place(unwritten(p.m, p.k, c.dx_stride(), dtype), false, placement), p.dx_stride = c.dx_stride();
  refined.refinement = refinement_of(c, placement, b);
  return refined;
}

void run(Group& group, const w8a16::Variant& variant, const RefinedCase& c, Placement placement, RefinedBuffers& b) {
  const Shape& s = c.shape;
  char description[160];
  snprintf(description, sizeof description, "m %lld n %lld, %lld groups of %lld, %lld outliers, %s",
           static_cast<long long>(s.m), static_cast<long long>(s.n), static_cast<long long>(c.refining.groups),
           static_cast<long long>(c.refining.group), static_cast<long long>(c.refining.outliers), name_of(placement));
  now_running("%s refined: %s", variant.name, description);
  for (bool wide : {false, true}) {
    w8a16::Refined<w8a16::Linear> p = forward_problem(c, placement, b);
    p.all.wide = wide;
    const bool done = variant.refined_linear(p);
    compare_outputs(group, b.y.data(), s.m, s.n, c.y_stride(), c.layout.dtype, c.y, c.y_tolerance, description);
    group.check(done && b.inputs_are(c, c.x) && workspace_intact(), "%s: written outside of the output", description);
  }
  const bool done = variant.refined_linear_input_grad(backward_problem(c, placement, b));
  compare_outputs(group, b.y.data(), s.m, s.k, c.dx_stride(), c.layout.dtype, c.dx, c.dx_tolerance, description);
  group.check(done && b.inputs_are(c, c.dy) && workspace_intact(), "%s: written outside of the gradient",
              description);
}

std::vector<Refining> refinings() {
  std::vector<Refining> all = {{3, 16, 0}, {2, 32, 2}, {5, 48, 0}, {2, 128, 1}, {1, 1, 1}, {1, 65, 4}, {1, 7, 1}};
  if (!options.quick)
    for (const Refining& more : {Refining{9, 128, 4}, {3, 1040, 0}, {1, 1300, 4}, {80, 16, 3}, {1, 300, 0}})
      all.push_back(more);
  return all;
}

void sweep(const Variants& variants, Float dtype, bool exact) {
  for (const w8a16::Variant* variant : variants) {
    Group group(std::string(variant->name) + " refined " + name_of(dtype) + (exact ? ", integers, to the bit" : ""));
    Random random(exact ? 31 : 37);
    RefinedBuffers buffers;
    const WatchedWorkspace workspace;
    int64_t turn = 0;
    for (const Refining& r : refinings())
      for (int64_t m : {1, 2, 3, 6, 7, 13, 61})
        for (int64_t n : {1, 7, 33, 100}) {
          if ((options.quick || r.groups * r.group > 400) && (m + n + turn) % 3 != 0 && ++turn) continue;
          const RefinedCase c = refined_case(m, n, r, dtype, ++turn, exact, random);
          check_reference(group, c.y, c.y_tolerance, "refined");
          run(group, *variant, c, static_cast<Placement>(turn % 4), buffers);
        }
  }
}

// Through the functions that Python calls, on 1 to 16 threads: the slices of each number differ.
void threads(const Variants& variants) {
  for (const w8a16::Variant* variant : variants) {
    int index = 0;
    while (index < w8a16::variant_count() && &w8a16::variant_at(index) != variant) ++index;
    if (index == w8a16::variant_count() || !w8a16::choose(index)) continue;  // only tested, not in the table
    for (Float dtype : kFloats) {
      Group group(std::string(variant->name) + " refined threads " + name_of(dtype));
      Random random(41);
      RefinedBuffers b;
      const Refining wanted[] = {{10, 48, 0}, {1, 500, 3}, {4, 128, 2}};
      for (const Refining& r : wanted)
        for (int64_t m : {1, 5, 40, 200}) {
          const RefinedCase c = refined_case(m, 230, r, dtype, 0, false, random);
          Bytes first, first_dx;
          for (uint32_t count : {1, 2, 5, 16}) {
            const StandInThreads some(count);
            group.check(w8a16::refined_linear(forward_problem(c, Placement::at_end, b)), "not done");
            compare_outputs(group, b.y.data(), m, 230, c.y_stride(), dtype, c.y, c.y_tolerance, "refined");
            const Bytes y(b.y.data(), b.y.data() + unwritten(m, 230, c.y_stride(), dtype).size());
            group.check(w8a16::refined_linear_input_grad(backward_problem(c, Placement::at_end, b)), "not done");
            compare_outputs(group, b.y.data(), m, c.shape.k, c.dx_stride(), dtype, c.dx, c.dx_tolerance, "gradient");
            const Bytes dx(b.y.data(), b.y.data() + unwritten(m, c.shape.k, c.dx_stride(), dtype).size());
            if (count == 1) first = y, first_dx = dx;
            group.check(y == first && dx == first_dx, "other bits on %u threads", count);
          }
        }
      const RefinedCase c = refined_case(3, 30, {2, 32, 1}, dtype, 1, false, random);
      for (int slot : {0, 1}) {
        const NoWorkspace denied(slot);
        const bool done = w8a16::refined_linear(forward_problem(c, Placement::at_end, b));
        const bool direct = slot == 1 && dtype == Float::f32;  // activations that are read where they lie
        group.check((!done || direct) && !w8a16::refined_linear_input_grad(backward_problem(c, Placement::at_end, b)),
                    "done without memory, slot %d", slot);
      }
    }
  }
}

void arguments() {
  Group group("arguments of refined problems");
  const int32_t columns[] = {0, 6, 3, 7};
  group.check(w8a16::columns_fit(columns, 4, 8) && w8a16::columns_fit(columns, 0, 0), "right ones");
  const int32_t negative[] = {0, -1};
  group.check(!w8a16::columns_fit(columns, 4, 7) && !w8a16::columns_fit(negative, 2, 8), "wrong ones");
  group.check(w8a16::refinable(1, 7) && w8a16::refinable(1, 0) && w8a16::refinable(5, 48), "groups with a kernel");
  group.check(!w8a16::refinable(2, 24) && !w8a16::refinable(3, 0) && !w8a16::refinable(0, 16), "groups without");
}

}  // namespace

void test_refined(const Variants& variants) {
  for (Float dtype : kFloats)
    for (bool exact : {false, true}) sweep(variants, dtype, exact);
  threads(variants);
  arguments();
}

}  // namespace native_test
