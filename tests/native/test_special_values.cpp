// NaN and infinities reach the outputs they belong to and no others; overflow and subnormal numbers.

#include <stdio.h>

#include <cmath>
#include <string>
#include <vector>

#include "linear_case.h"
#include "tests.h"

namespace native_test {

namespace {

struct Values {
  int64_t m, k, n;
  std::vector<double> x, scales, bias;
  std::vector<int8_t> q;

  Values(int64_t rows, int64_t in, int64_t out, Random& random) : m(rows), k(in), n(out) {
    for (int64_t i = 0; i < m * k; ++i) x.push_back(static_cast<double>(random.between(-3, 3)));
    for (int64_t i = 0; i < n * k; ++i) q.push_back(static_cast<int8_t>(random.between(-2, 2)));
    scales.assign(static_cast<size_t>(n), 0.5);
    bias.assign(static_cast<size_t>(n), 1.0);
  }
};

// Every number is a small integer or special, so the arithmetic of double gives the very answer.
void run(Group& group, const w8a16::Variant& variant, const Values& v, Float dtype, bool wide, const char* what) {
  now_running("%s %s: k %lld n %lld", variant.name, what, static_cast<long long>(v.k), static_cast<long long>(v.n));
  const Bytes x = bytes_of(v.x.data(), v.m * v.k, dtype), scales = bytes_of(v.scales.data(), v.n, Float::f32);
  const Bytes bias = bytes_of(v.bias.data(), v.n, Float::f32);
  Bytes y(static_cast<size_t>(v.m * v.n * w8a16::bytes_of(dtype)));
  w8a16::Linear p = {};
  p.x = x.data(), p.x_stride = v.k, p.q = v.q.data(), p.q_stride = v.k;
  p.scales = {scales.data(), Float::f32};
  p.bias = {bias.data(), Float::f32};
  p.y = y.data(), p.y_stride = v.n;
  p.m = v.m, p.k = v.k, p.n = v.n;
  p.dtype = dtype;
  p.wide = wide;
  variant.linear(p);
  for (int64_t m = 0; m < v.m; ++m)
    for (int64_t n = 0; n < v.n; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < v.k; ++k)
        sum += v.x[static_cast<size_t>(m * v.k + k)] * v.q[static_cast<size_t>(n * v.k + k)];
      const double exact = sum * v.scales[static_cast<size_t>(n)] + v.bias[static_cast<size_t>(n)];
      const double found = decode(get(y.data(), m * v.n + n, dtype), dtype);
      group.check(std::isnan(exact) ? std::isnan(found) : found == rounded(exact, dtype),
                  "%s: k %lld n %lld: output [%lld, %lld] is %g, expected %g", what, static_cast<long long>(v.k),
                  static_cast<long long>(v.n), static_cast<long long>(m), static_cast<long long>(n), found, exact);
    }
}

void special(Group& group, const w8a16::Variant& variant, Float dtype, bool wide) {
  Random random(41);
  for (int64_t k : {1, 4, 7, 16, 37})
    for (int64_t n : {1, 7, 8, 16, 29}) {
      Values nan(5, k, n, random), infinite = nan, columns = nan;
      nan.x[static_cast<size_t>(2 * k - 1)] = std::nan("");
      run(group, variant, nan, dtype, wide, "NaN in one row");
      infinite.x[static_cast<size_t>(3 * k)] = HUGE_VAL;
      infinite.x[static_cast<size_t>(5 * k - 1)] = -HUGE_VAL;
      run(group, variant, infinite, dtype, wide, "infinities in two rows");
      columns.scales[static_cast<size_t>(n - 1)] = std::nan("");
      columns.bias[0] = -HUGE_VAL;
      run(group, variant, columns, dtype, wide, "NaN and infinity in columns");
    }
}

// One activation x against one code, at every place of a row: y = x q s.
void one_product(Group& group, const w8a16::Variant& variant, Float dtype, bool wide, double x, int q, double s,
                 const char* what) {
  Random random(43);
  for (int64_t k : {1, 9, 16, 35})
    for (int64_t n : {1, 5, 16, 33}) {
      Values v(3, k, n, random);
      std::fill(v.x.begin(), v.x.end(), 0.0);
      for (int64_t m = 0; m < 3; ++m) v.x[static_cast<size_t>(m * k + (m == 0 ? k - 1 : m == 1 ? 0 : k / 2))] = x;
      std::fill(v.q.begin(), v.q.end(), static_cast<int8_t>(q));
      std::fill(v.scales.begin(), v.scales.end(), s);
      std::fill(v.bias.begin(), v.bias.end(), 0.0);
      run(group, variant, v, dtype, wide, what);
    }
}

void ranges(Group& group, const w8a16::Variant& variant, Float dtype, bool wide) {
  const double tiny = smallest_subnormal(dtype), step = dtype == Float::f16 ? 1 : 0x1p-100;
  const double largest = dtype == Float::f16 ? 65504 : dtype == Float::bf16 ? 0x1.fep127 : 0x1.fffffep127;
  one_product(group, variant, dtype, wide, step, 3, tiny / step, "subnormal output");
  one_product(group, variant, dtype, wide, step, -1, tiny / step, "smallest output");
  one_product(group, variant, dtype, wide, tiny, 1, 1, "smallest activation");
  one_product(group, variant, dtype, wide, 127 * tiny, 127, 0.5, "subnormal activation");
  one_product(group, variant, dtype, wide, largest, -1, 1, "largest activation");
  if (dtype == Float::f32) return;
  one_product(group, variant, dtype, wide, step, 1, tiny / step / 2, "half of the smallest: to even");
  one_product(group, variant, dtype, wide, step, 3, tiny / step / 2, "one and a half of the smallest: to even");
  if (dtype == Float::f16) {
    one_product(group, variant, dtype, wide, largest, 127, 1.0 / 128, "a product beyond the type");
    one_product(group, variant, dtype, wide, 516, 127, 1, "overflow to infinity");
    one_product(group, variant, dtype, wide, 516, -127, 0.001953125, "no overflow before the scale");
  }
}

// dx of rows with NaN and infinity: only those rows are touched.
void gradients(Group& group, const w8a16::Variant& variant, Float dtype) {
  Random random(47);
  for (int64_t n : {1, 8, 31})
    for (int64_t k : {1, 7, 16, 33}) {
      const int64_t m = 4;
      Values v(m, n, k, random);  // dy is [m, n], and q as laid out here [k, n]: turned below
      v.x[static_cast<size_t>(2 * n - 1)] = std::nan("");
      v.x[static_cast<size_t>(2 * n)] = HUGE_VAL;
      std::vector<int8_t> q(v.q.size());
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = 0; j < n; ++j) q[static_cast<size_t>(j * k + i)] = v.q[static_cast<size_t>(i * n + j)];
      const Bytes dy = bytes_of(v.x.data(), m * n, dtype);
      const std::vector<float> scales(static_cast<size_t>(n), 0.5f);
      Bytes dx(static_cast<size_t>(m * k * w8a16::bytes_of(dtype)));
      variant.linear_input_grad(
          {dy.data(), n, q.data(), k, {scales.data(), Float::f32}, dx.data(), k, m, k, n, dtype});
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < k; ++j) {
          double exact = 0;
          for (int64_t l = 0; l < n; ++l)
            exact += v.x[static_cast<size_t>(i * n + l)] * 0.5 * q[static_cast<size_t>(l * k + j)];
          const double found = decode(get(dx.data(), i * k + j, dtype), dtype);
          group.check(std::isnan(exact) ? std::isnan(found) : found == exact, "dx[%lld, %lld] is %g, expected %g",
                      static_cast<long long>(i), static_cast<long long>(j), found, exact);
        }
    }
}

}  // namespace

void test_special_values(const Variants& variants) {
  for (const w8a16::Variant* variant : variants)
    for (Float dtype : kFloats) {
      Group group(std::string(variant->name) + " special values " + name_of(dtype));
      const WatchedWorkspace workspace;
      for (bool wide : {false, true}) {
        special(group, *variant, dtype, wide);
        ranges(group, *variant, dtype, wide);
      }
      gradients(group, *variant, dtype);
    }
}

}  // namespace native_test
