// Several weights, each for its own rows: every row as the plain problem gives it, the others zero.

#include <string.h>

#include <string>

#include "linear_case.h"
#include "parallel_ops.h"
#include "stand_in_threads.h"
#include "tests.h"
#include "variants.h"

namespace native_test {

namespace {

constexpr int64_t kStepExtra = 7;  // codes between one weight and the next

struct Groups {
  int64_t before;  // rows that belong to none
  std::vector<int64_t> counts;
  int64_t after;
};

struct GroupedBuffers {
  Watched x, q, scales, bias, offsets, y;
};

// A grouped problem put together from one plain problem for each weight.
struct GroupedCase {
  Groups groups;
  Layout layout;
  int64_t k, n, rows = 0;
  std::vector<LinearCase> parts;  // an empty weight has one row here, which is left out
  std::vector<int64_t> offsets;
  Bytes x, q, scales, bias, dy;
  std::vector<double> y, tolerance;

  int64_t experts() const { return static_cast<int64_t>(parts.size()); }
  int64_t x_stride() const { return k + layout.x_extra; }
  int64_t q_stride() const { return k + layout.q_extra; }
  int64_t y_stride() const { return n + layout.y_extra; }
  int64_t q_step() const { return n * q_stride() + kStepExtra; }
};

void append(Bytes& all, const Bytes& more, size_t bytes) {
  all.insert(all.end(), more.begin(), more.begin() + static_cast<std::ptrdiff_t>(bytes));
}

// Rows behind one another: `row` bytes of each, `stride` apart.
void append_rows(Bytes& all, const Bytes& from, int64_t rows, int64_t row, int64_t stride, int64_t size) {
  for (int64_t i = 0; i < rows; ++i) {
    const auto start = from.begin() + static_cast<std::ptrdiff_t>(i * stride * size);
    all.insert(all.end(), start, start + static_cast<std::ptrdiff_t>(row * size));
    all.insert(all.end(), static_cast<size_t>((stride - row) * size), 0xff);
  }
}

GroupedCase grouped_case(const Groups& groups, int64_t k, int64_t n, Float dtype, int64_t turn, Random& random) {
  GroupedCase g;
  g.groups = groups, g.layout = layout_for(dtype, turn), g.k = k, g.n = n;
  const int64_t size = w8a16::bytes_of(dtype);
  const auto strangers = [&](int64_t count) {  // rows of NaN: whoever reads one shows it
    g.x.insert(g.x.end(), static_cast<size_t>(count * g.x_stride() * size), 0xff);
    g.y.insert(g.y.end(), static_cast<size_t>(count * n), 0.0);
    g.tolerance.insert(g.tolerance.end(), static_cast<size_t>(count * n), 0.0);
    g.rows += count;
  };
  strangers(groups.before);
  g.offsets.push_back(g.rows);
  for (int64_t count : groups.counts) {
    g.parts.push_back(random_case({count > 0 ? count : 1, k, n}, g.layout, random));
    const LinearCase& c = g.parts.back();
    append_rows(g.x, c.x, count, k, g.x_stride(), size);
    append_rows(g.q, c.q, n, k, g.q_stride(), 1);
    g.q.insert(g.q.end(), static_cast<size_t>(kStepExtra), 0xff);
    append(g.scales, c.scales, static_cast<size_t>(n * w8a16::bytes_of(g.layout.scales_dtype)));
    if (g.layout.bias) append(g.bias, c.bias, static_cast<size_t>(n * w8a16::bytes_of(g.layout.bias_dtype)));
    g.y.insert(g.y.end(), c.y.begin(), c.y.begin() + static_cast<std::ptrdiff_t>(count * n));
    g.tolerance.insert(g.tolerance.end(), c.tolerance.begin(),
                       c.tolerance.begin() + static_cast<std::ptrdiff_t>(count * n));
    g.rows += count;
    g.offsets.push_back(g.rows);
  }
  strangers(groups.after);
  // Nothing lies behind the last row of a buffer.
  if (g.rows > 0) g.x.resize(static_cast<size_t>(extent(g.rows, k, g.x_stride()) * size));
  if (g.experts() > 0 && n > 0)
    g.q.resize(static_cast<size_t>((g.experts() - 1) * g.q_step() + extent(n, k, g.q_stride())));
  std::vector<double> values(static_cast<size_t>(g.rows * n));
  for (double& value : values) value = random.normal();
  g.dy = bytes_of(values.data(), g.rows * n, dtype);
  return g;
}

w8a16::Grouped<w8a16::Linear> linear_problem(const GroupedCase& g, GroupedBuffers& b, Placement placement) {
  Bytes bounds(g.offsets.size() * sizeof(int64_t));
  memcpy(bounds.data(), g.offsets.data(), bounds.size());
  const Bytes unwritten(static_cast<size_t>(extent(g.rows, g.n, g.y_stride()) * w8a16::bytes_of(g.layout.dtype)),
                        kUnwritten);
  w8a16::Linear p = {};
  p.x = b.x.place(g.x, placement), p.x_stride = g.x_stride();
  p.q = static_cast<const int8_t*>(b.q.place(g.q, placement)), p.q_stride = g.q_stride();
  p.scales = {b.scales.place(g.scales, placement), g.layout.scales_dtype};
  p.bias = {g.layout.bias ? b.bias.place(g.bias, placement) : nullptr, g.layout.bias_dtype};
  p.y = b.y.place(unwritten, false, placement), p.y_stride = g.y_stride();
  p.m = g.rows, p.k = g.k, p.n = g.n, p.dtype = g.layout.dtype;
  return {p, static_cast<const int64_t*>(b.offsets.place(bounds, false, placement)), g.experts(), g.q_step()};
}

w8a16::Grouped<w8a16::LinearInputGrad> grad_problem(const GroupedCase& g, Bytes& dx) {
  dx.assign(static_cast<size_t>(g.rows * g.k * w8a16::bytes_of(g.layout.dtype)), kUnwritten);
  w8a16::LinearInputGrad p = {};
  p.dy = g.dy.data(), p.dy_stride = g.n;
  p.q = reinterpret_cast<const int8_t*>(g.q.data()), p.q_stride = g.q_stride();
  p.scales = {g.scales.data(), g.layout.scales_dtype};
  p.dx = dx.data(), p.dx_stride = g.k;
  p.m = g.rows, p.k = g.k, p.n = g.n, p.dtype = g.layout.dtype;
  return {p, g.offsets.data(), g.experts(), g.q_step()};
}

// One weight after the other with the plain functions, which are tested elsewhere.
Bytes plain_linear(const GroupedCase& g) {
  const int64_t size = w8a16::bytes_of(g.layout.dtype);
  Bytes y(static_cast<size_t>(g.rows * g.n * size));
  for (size_t e = 0; e < g.parts.size(); ++e) {
    const LinearCase& c = g.parts[e];
    w8a16::Linear p = {};
    p.x = c.x.data(), p.x_stride = c.x_stride();
    p.q = reinterpret_cast<const int8_t*>(c.q.data()), p.q_stride = c.q_stride();
    p.scales = {c.scales.data(), g.layout.scales_dtype};
    p.bias = {g.layout.bias ? c.bias.data() : nullptr, g.layout.bias_dtype};
    p.y = y.data() + g.offsets[e] * g.n * size, p.y_stride = g.n;
    p.m = g.groups.counts[e], p.k = g.k, p.n = g.n, p.dtype = g.layout.dtype;
    w8a16::linear(p);
  }
  return y;
}

Bytes plain_grad(const GroupedCase& g) {
  const int64_t size = w8a16::bytes_of(g.layout.dtype);
  Bytes dx(static_cast<size_t>(g.rows * g.k * size));
  for (size_t e = 0; e < g.parts.size(); ++e) {
    const LinearCase& c = g.parts[e];
    w8a16::LinearInputGrad p = {};
    p.dy = g.dy.data() + g.offsets[e] * g.n * size, p.dy_stride = g.n;
    p.q = reinterpret_cast<const int8_t*>(c.q.data()), p.q_stride = c.q_stride();
    p.scales = {c.scales.data(), g.layout.scales_dtype};
    p.dx = dx.data() + g.offsets[e] * g.k * size, p.dx_stride = g.k;
    p.m = g.groups.counts[e], p.k = g.k, p.n = g.n, p.dtype = g.layout.dtype;
    w8a16::linear_input_grad(p);
  }
  return dx;
}

void run(Group& group, const char* name, const GroupedCase& g, uint32_t count, Placement placement,
         GroupedBuffers& b) {
  now_running("%s grouped: %lld rows, %lld experts, k %lld n %lld, %u threads, %s", name,
              static_cast<long long>(g.rows), static_cast<long long>(g.experts()), static_cast<long long>(g.k),
              static_cast<long long>(g.n), count, name_of(placement));
  const int64_t size = w8a16::bytes_of(g.layout.dtype);
  const Bytes y = plain_linear(g), dx = plain_grad(g);
  const StandInThreads threads(count);
  const w8a16::Grouped<w8a16::Linear> p = linear_problem(g, b, placement);
  group.check(w8a16::grouped_linear(p), "not done");
  compare_outputs(group, b.y.data(), g.rows, g.n, g.y_stride(), g.layout.dtype, g.y, g.tolerance, "grouped");
  bool same = true;
  for (int64_t i = 0; i < g.rows; ++i)
    same &= g.n == 0 || memcmp(b.y.data() + i * g.y_stride() * size, y.data() + i * g.n * size,
                               static_cast<size_t>(g.n * size)) == 0;
  group.check(same, "%lld rows, k %lld, n %lld: not the bits of the plain problem", static_cast<long long>(g.rows),
              static_cast<long long>(g.k), static_cast<long long>(g.n));
  group.check(b.x.content_is(g.x) && b.q.content_is(g.q) && b.scales.content_is(g.scales) &&
                  b.x.surroundings_intact() && b.q.surroundings_intact() && b.scales.surroundings_intact() &&
                  b.offsets.surroundings_intact() && b.y.surroundings_intact(),
              "written outside of the output");
  Bytes found;
  group.check(w8a16::grouped_linear_input_grad(grad_problem(g, found)) && found == dx,
              "%lld rows, k %lld, n %lld: not the bits of the plain gradient", static_cast<long long>(g.rows),
              static_cast<long long>(g.k), static_cast<long long>(g.n));
}

void without_memory(Group& group) {
  Random random(29);
  GroupedBuffers b;
  const GroupedCase g = grouped_case({0, {1, 2}, 0}, 70, 30, Float::bf16, 1, random);
  const w8a16::Grouped<w8a16::Linear> p = linear_problem(g, b, Placement::at_end);
  Bytes dx;
  for (int slot : {0, 1}) {
    const NoWorkspace denied(slot);
    group.check(!w8a16::grouped_linear(p) && !w8a16::grouped_linear_input_grad(grad_problem(g, dx)),
                "done without memory, slot %d", slot);
  }
}

void offsets(Group& group) {
  const auto fit = [](std::vector<int64_t> bounds, int64_t rows) {
    return w8a16::offsets_fit(bounds.data(), static_cast<int64_t>(bounds.size()) - 1, rows);
  };
  group.check(fit({0}, 0) && fit({3}, 5) && fit({0, 5}, 5) && fit({1, 1, 4, 4}, 4) && fit({0, 0, 0}, 0), "right ones");
  group.check(!fit({-1, 2}, 5) && !fit({0, 6}, 5) && !fit({0, 3, 2, 5}, 5) && !fit({6}, 5) && !fit({0, 9, 5}, 5) &&
                  !fit({3, 2}, 5) && !fit({0, -1, 5}, 5),
              "wrong ones");
}

}  // namespace

void test_grouped(const Variants& variants) {
  const std::vector<Groups> all = {
      {0, {2, 0, 3}, 0}, {2, {1}, 3},  {1, {0, 0}, 1},         {0, {}, 4},         {0, {}, 0},
      {0, {0, 9, 0}, 0}, {3, {4}, 0},  {0, {1, 50, 7, 0, 2}, 5}, {0, {40, 1, 40}, 0}, {0, std::vector<int64_t>(33, 1), 0},
  };
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{0, 5},    {5, 0},    {1, 1},     {33, 24},
                                                           {70, 200}, {257, 97}, {1100, 130}};
  for (const w8a16::Variant* variant : variants) {
    int index = 0;
    while (index < w8a16::variant_count() && &w8a16::variant_at(index) != variant) ++index;
    if (index == w8a16::variant_count() || !w8a16::choose(index)) continue;  // only tested, not in the table
    for (Float dtype : kFloats) {
      Group group(std::string(variant->name) + " grouped " + name_of(dtype));
      Random random(23);
      GroupedBuffers buffers;
      int64_t turn = 0;
      for (const Groups& groups : all)
        for (const auto& [k, n] : shapes) {
          if (options.quick && k > 70) continue;
          const GroupedCase g = grouped_case(groups, k, n, dtype, ++turn, random);
          const uint32_t counts[] = {1, 2, 5, 16};
          for (int i = 0; i < 4; ++i) run(group, variant->name, g, counts[i], static_cast<Placement>(i), buffers);
        }
      without_memory(group);
      offsets(group);
    }
  }
}

}  // namespace native_test
