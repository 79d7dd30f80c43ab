// The same bits for a slice as for the whole, and for every number of threads.

#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <string>

#include "linear_case.h"
#include "parallel_ops.h"
#include "stand_in_threads.h"
#include "tests.h"
#include "variants.h"

namespace native_test {

namespace {

const void* from(const void* p, int64_t elements, Float dtype) {
  return static_cast<const char*>(p) + elements * w8a16::bytes_of(dtype);
}
void* from(void* p, int64_t elements, Float dtype) {
  return static_cast<char*>(p) + elements * w8a16::bytes_of(dtype);
}

// Cuts 0..total at random places.
std::vector<int64_t> cuts(int64_t total, int64_t pieces, Random& random) {
  std::vector<int64_t> at = {0, total};
  for (int64_t i = 1; i < pieces; ++i) at.push_back(random.between(0, total));
  std::sort(at.begin(), at.end());
  return at;
}

w8a16::Linear linear_problem(const LinearCase& c, Bytes& y, bool wide) {
  y.assign(static_cast<size_t>(c.shape.m * c.shape.n * w8a16::bytes_of(c.layout.dtype)), kUnwritten);
  w8a16::Linear p = {};
  p.x = c.x.data(), p.x_stride = c.x_stride();
  p.q = reinterpret_cast<const int8_t*>(c.q.data()), p.q_stride = c.q_stride();
  p.scales = {c.scales.data(), c.layout.scales_dtype};
  p.bias = {c.layout.bias ? c.bias.data() : nullptr, c.layout.bias_dtype};
  p.y = y.data(), p.y_stride = c.shape.n;
  p.m = c.shape.m, p.k = c.shape.k, p.n = c.shape.n;
  p.dtype = c.layout.dtype;
  p.wide = wide;
  return p;
}

w8a16::LinearInputGrad grad_problem(const LinearCase& c, const Bytes& dy, Bytes& dx) {
  dx.assign(static_cast<size_t>(c.shape.m * c.shape.k * w8a16::bytes_of(c.layout.dtype)), kUnwritten);
  w8a16::LinearInputGrad p = {};
  p.dy = dy.data(), p.dy_stride = c.shape.n;
  p.q = reinterpret_cast<const int8_t*>(c.q.data()), p.q_stride = c.q_stride();
  p.scales = {c.scales.data(), c.layout.scales_dtype};
  p.dx = dx.data(), p.dx_stride = c.shape.k;
  p.m = c.shape.m, p.k = c.shape.k, p.n = c.shape.n;
  p.dtype = c.layout.dtype;
  return p;
}

void linear_slices(Group& group, const w8a16::Variant& variant, const LinearCase& c, bool wide, Random& random) {
  Bytes whole, sliced;
  variant.linear(linear_problem(c, whole, wide));
  for (int round = 0; round < 3; ++round) {
    const w8a16::Linear p = linear_problem(c, sliced, wide);
    const std::vector<int64_t> rows = cuts(p.m, 3, random), columns = cuts(p.n, 4, random);
    for (size_t i = 0; i + 1 < rows.size(); ++i)
      for (size_t j = 0; j + 1 < columns.size(); ++j) {
        w8a16::Linear s = p;
        s.x = from(p.x, rows[i] * p.x_stride, p.dtype);
        s.q += columns[j] * p.q_stride;
        s.scales.data = from(p.scales.data, columns[j], p.scales.dtype);
        if (p.bias.data != nullptr) s.bias.data = from(p.bias.data, columns[j], p.bias.dtype);
        s.y = from(p.y, rows[i] * p.y_stride + columns[j], p.dtype);
        s.m = rows[i + 1] - rows[i], s.n = columns[j + 1] - columns[j];
        variant.linear(s);
      }
    group.check(sliced == whole, "m %lld k %lld n %lld: slices differ from the whole", static_cast<long long>(p.m),
                static_cast<long long>(p.k), static_cast<long long>(p.n));
  }
}

void grad_slices(Group& group, const w8a16::Variant& variant, const LinearCase& c, Random& random) {
  std::vector<double> values(static_cast<size_t>(c.shape.m * c.shape.n));
  for (double& value : values) value = random.normal();
  const Bytes dy = bytes_of(values.data(), c.shape.m * c.shape.n, c.layout.dtype);
  Bytes whole, sliced;
  variant.linear_input_grad(grad_problem(c, dy, whole));
  for (int round = 0; round < 3; ++round) {
    const w8a16::LinearInputGrad p = grad_problem(c, dy, sliced);
    const std::vector<int64_t> rows = cuts(p.m, 3, random), columns = cuts(p.k, 4, random);
    for (size_t i = 0; i + 1 < rows.size(); ++i)
      for (size_t j = 0; j + 1 < columns.size(); ++j) {
        w8a16::LinearInputGrad s = p;
        s.dy = from(p.dy, rows[i] * p.dy_stride, p.dtype);
        s.q += columns[j];
        s.dx = from(p.dx, rows[i] * p.dx_stride + columns[j], p.dtype);
        s.m = rows[i + 1] - rows[i], s.k = columns[j + 1] - columns[j];
        variant.linear_input_grad(s);
      }
    group.check(sliced == whole, "m %lld k %lld n %lld: slices of the gradient differ from the whole",
                static_cast<long long>(p.m), static_cast<long long>(p.k), static_cast<long long>(p.n));
  }
}

std::vector<Shape> shapes() {
  if (options.quick) return {{3, 70, 50}, {40, 33, 70}};
  return {{1, 1300, 300}, {2, 100, 250}, {5, 1025, 130}, {7, 2100, 99}, {13, 65, 1100},
          {40, 300, 70},  {200, 40, 65}, {33, 513, 129}, {3, 11008, 97}};
}

// All operations through the functions that Python calls, on 1 to 16 threads.
void threads(const Variants& variants) {
  for (const w8a16::Variant* variant : variants) {
    int index = 0;
    while (index < w8a16::variant_count() && &w8a16::variant_at(index) != variant) ++index;
    if (index == w8a16::variant_count() || !w8a16::choose(index)) continue;  // only tested, not in the table
    for (Float dtype : kFloats) {
      Group group(std::string(variant->name) + " threads " + name_of(dtype));
      Random random(11);
      const std::vector<Shape> cases = options.quick
                                           ? std::vector<Shape>{{3, 300, 400}, {40, 100, 150}}
                                           : std::vector<Shape>{{1, 1300, 700}, {7, 4097, 300}, {32, 200, 500},
                                                                {33, 200, 500}, {300, 64, 100}, {2000, 33, 7}};
      for (const Shape& shape : cases) {
        const LinearCase c = random_case(shape, layout_for(dtype, shape.m), random);
        std::vector<double> values(static_cast<size_t>(shape.m * shape.n));
        for (double& value : values) value = random.normal();
        const Bytes dy = bytes_of(values.data(), shape.m * shape.n, dtype);
        Bytes y[2], dx[2];
        for (uint32_t count : {1u, 2u, 3u, 5u, 16u}) {
          now_running("%s threads %u, m %lld", variant->name, count, static_cast<long long>(shape.m));
          const StandInThreads threads(count);
          const int which = count != 1;
          w8a16::linear(linear_problem(c, y[which], false));
          w8a16::linear_input_grad(grad_problem(c, dy, dx[which]));
          if (count == 1) continue;
          group.check(threads.parts_run() > 2, "m %lld: %u threads had nothing to share", static_cast<long long>(shape.m),
                      count);
          group.check(y[0] == y[1] && dx[0] == dx[1], "m %lld k %lld n %lld: %u threads differ from one",
                      static_cast<long long>(shape.m), static_cast<long long>(shape.k),
                      static_cast<long long>(shape.n), count);
        }
        compare_outputs(group, y[1].data(), shape.m, shape.n, shape.n, dtype, c.y, c.tolerance, "on 16 threads");
      }
    }
  }
}

// Where memory is short: the answer is false, and nothing is written. Float32 activations that can be used
// in place need only one of the two workspaces.
void without_memory(const Variants& variants) {
  for (const w8a16::Variant* variant : variants) {
    Group group(std::string(variant->name) + " without memory");
    Random random(53);
    for (Float dtype : kFloats)
      for (int slot : {0, 1}) {
        const LinearCase c = random_case({5, 100, 60}, layout_for(dtype, 1), random);
        const Bytes dy(static_cast<size_t>(5 * 60 * w8a16::bytes_of(dtype)));
        Bytes y;
        const NoWorkspace denied(slot);
        for (bool wide : {false, true}) {
          const bool done = variant->linear(linear_problem(c, y, wide));
          group.check(!done && y == Bytes(y.size(), kUnwritten), "linear, wide %d, slot %d, %s", wide, slot,
                      name_of(dtype));
        }
        const bool done = variant->linear_input_grad(grad_problem(c, dy, y));
        group.check(!done && y == Bytes(y.size(), kUnwritten), "input gradient, slot %d, %s", slot, name_of(dtype));
        if (&w8a16::chosen() != variant) continue;
        group.check(!w8a16::linear(linear_problem(c, y, false)), "the whole problem, slot %d", slot);
        group.check(!w8a16::linear_input_grad(grad_problem(c, dy, y)), "the whole gradient, slot %d", slot);
      }
  }
}

}  // namespace

void test_slices(const Variants& variants) {
  for (const w8a16::Variant* variant : variants)
    for (Float dtype : kFloats) {
      Group group(std::string(variant->name) + " slices " + name_of(dtype));
      Random random(5);
      int64_t turn = 0;
      for (const Shape& shape : shapes()) {
        const LinearCase c = random_case(shape, layout_for(dtype, ++turn), random);
        now_running("%s slices, m %lld", variant->name, static_cast<long long>(shape.m));
        for (bool wide : {false, true}) linear_slices(group, *variant, c, wide, random);
        grad_slices(group, *variant, c, random);
      }
    }
  threads(variants);
  without_memory(variants);
}

}  // namespace native_test
