#include "linear_case.h"

#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <cmath>

namespace native_test {

namespace {

// Sums of products and of their magnitudes.
void dot(const double* a, const double* b, int64_t count, double* sum, double* size) {
  double s = 0, t = 0;
#pragma omp simd reduction(+ : s, t)
  for (int64_t i = 0; i < count; ++i) {
    s += a[i] * b[i];
    t += std::fabs(a[i]) * std::fabs(b[i]);
  }
  *sum = s;
  *size = t;
}

// The values as the kernel sees them.
std::vector<double> decoded(const std::vector<double>& values, Float dtype) {
  std::vector<double> seen(values.size());
  for (size_t i = 0; i < values.size(); ++i) seen[i] = rounded(values[i], dtype);
  return seen;
}

// x, q, scales and bias as numbers.
struct Numbers {
  std::vector<double> x, scales, bias;
  std::vector<int8_t> q;
};

LinearCase with_bytes(const Shape& s, const Layout& layout, const Numbers& numbers) {
  LinearCase c;
  c.shape = s;
  c.layout = layout;
  c.x = matrix_bytes(numbers.x, s.m, s.k, c.x_stride(), layout.dtype);
  c.q = codes_bytes(numbers.q, s.n, s.k, c.q_stride());
  c.scales = bytes_of(numbers.scales.data(), s.n, layout.scales_dtype);
  if (layout.bias) c.bias = bytes_of(numbers.bias.data(), s.n, layout.bias_dtype);
  c.y.resize(static_cast<size_t>(s.m * s.n));
  c.tolerance.resize(c.y.size());
  return c;
}

}  // namespace

Layout layout_for(Float dtype, int64_t turn) {
  Layout layout;
  layout.dtype = dtype;
  layout.bias = turn % 3 != 0;
  layout.bias_dtype = turn % 2 != 0 ? dtype : kFloats[turn / 2 % 3];
  layout.scales_dtype = turn % 4 != 3 ? Float::f32 : kFloats[1 + turn / 4 % 2];
  layout.x_extra = turn % 5 == 1 ? 3 : turn % 5 == 2 ? 16 : 0;
  layout.q_extra = turn % 7 == 1 ? 5 : 0;
  layout.y_extra = turn % 4 == 2 ? 7 : 0;
  return layout;
}

int64_t extent(int64_t rows, int64_t columns, int64_t stride) {
  return rows == 0 ? 0 : (rows - 1) * stride + columns;
}

Bytes matrix_bytes(const std::vector<double>& values, int64_t rows, int64_t columns, int64_t stride, Float dtype) {
  Bytes bytes(static_cast<size_t>(extent(rows, columns, stride) * w8a16::bytes_of(dtype)), 0xff);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      put(bytes.data(), i * stride + j, dtype, encode(values[static_cast<size_t>(i * columns + j)], dtype));
  return bytes;
}

Bytes codes_bytes(const std::vector<int8_t>& values, int64_t rows, int64_t columns, int64_t stride) {
  Bytes bytes(static_cast<size_t>(extent(rows, columns, stride)), 0xff);
  for (int64_t i = 0; i < rows && columns > 0; ++i)
    memcpy(bytes.data() + i * stride, values.data() + i * columns, static_cast<size_t>(columns));
  return bytes;
}

LinearCase random_case(const Shape& s, const Layout& layout, Random& random) {
  Numbers v;
  for (int64_t i = 0; i < s.m * s.k; ++i) v.x.push_back(random.normal());
  for (int64_t i = 0; i < s.n * s.k; ++i) {
    const int8_t code = static_cast<int8_t>(random.between(-128, 127));
    v.q.push_back(code == 0 && s.k < 4 ? 1 : code);
  }
  for (int64_t i = 0; i < s.n; ++i) v.scales.push_back(0.001 + 0.02 * random.uniform());
  for (int64_t i = 0; i < s.n && layout.bias; ++i) v.bias.push_back(random.normal());
  LinearCase c = with_bytes(s, layout, v);

  v.x = decoded(v.x, layout.dtype);
  v.scales = decoded(v.scales, layout.scales_dtype);
  v.bias = decoded(v.bias, layout.bias_dtype);
  const double steps = static_cast<double>(s.k) + 2, g = steps * 0x1p-24 / (1 - steps * 0x1p-24);
  const double u = unit_roundoff(layout.dtype), half_a_step = smallest_subnormal(layout.dtype) / 2;
  std::vector<double> codes(static_cast<size_t>(s.k));
  for (int64_t n = 0; n < s.n; ++n) {
    std::copy_n(v.q.begin() + n * s.k, s.k, codes.begin());
    const double scale = v.scales[static_cast<size_t>(n)], bias = layout.bias ? v.bias[static_cast<size_t>(n)] : 0;
    for (int64_t m = 0; m < s.m; ++m) {
      double sum, size;
      dot(v.x.data() + m * s.k, codes.data(), s.k, &sum, &size);
      const double y = sum * scale + bias, terms = size * scale + std::fabs(bias);
      c.y[static_cast<size_t>(m * s.n + n)] = y;
      c.tolerance[static_cast<size_t>(m * s.n + n)] =
          g * terms + u * (1 + g) * std::fabs(y) + u * g * terms + half_a_step;
    }
  }
  return c;
}

LinearCase integer_case(const Shape& s, const Layout& layout, Random& random) {
  // Every integer up to `limit` is a value of the type. Half-precision sums stay below it because only a few
  // activations of a row are not zero: the first, the last, and some between.
  const int64_t limit = layout.dtype == Float::f32 ? 1 << 24 : layout.dtype == Float::f16 ? 2048 : 256;
  const int64_t code = layout.dtype == Float::bf16 ? 12 : 127, largest_bias = 32;
  const int64_t factor = layout.dtype == Float::f32 ? 4 : 1;
  const int64_t most = std::min(s.k, (limit - largest_bias) / (code * factor));
  Numbers v;
  v.x.assign(static_cast<size_t>(s.m * s.k), 0.0);
  for (int64_t m = 0; m < s.m; ++m)
    for (int64_t i = 0; i < most; ++i) {
      const int64_t at = i == 0 ? s.k - 1 : i == 1 ? 0 : most == s.k ? i - 1 : random.below(s.k);
      const double sign = random.below(2) != 0 ? 1 : -1;
      v.x[static_cast<size_t>(m * s.k + at)] = sign * static_cast<double>(random.between(1, factor));
    }
  for (int64_t i = 0; i < s.n * s.k; ++i) {
    const int64_t q = random.between(1, code);
    v.q.push_back(static_cast<int8_t>(random.below(2) != 0 ? q : -q));
  }
  for (int64_t n = 0; n < s.n; ++n) {
    v.scales.push_back(std::ldexp(1.0, static_cast<int>(random.between(-3, 3))));
    if (layout.bias) v.bias.push_back(v.scales.back() * static_cast<double>(random.between(1, largest_bias)));
  }
  LinearCase c = with_bytes(s, layout, v);
  const std::vector<int32_t> x(v.x.begin(), v.x.end());
  for (int64_t m = 0; m < s.m; ++m)
    for (int64_t n = 0; n < s.n; ++n) {
      int64_t sum = 0;
      for (int64_t k = 0; k < s.k; ++k)
        sum += x[static_cast<size_t>(m * s.k + k)] * v.q[static_cast<size_t>(n * s.k + k)];
      const size_t i = static_cast<size_t>(n);
      c.y[static_cast<size_t>(m * s.n + n)] =
          static_cast<double>(sum) * v.scales[i] + (layout.bias ? v.bias[i] : 0.0);
    }
  return c;
}

void check_reference(Group& group, const std::vector<double>& y, const std::vector<double>& tolerance,
                     const char* description) {
  if (y.size() < 8) return;  // so few may well be small or zero
  double norm = 0, largest = 0, loosest = 0;
  size_t zeros = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    norm += y[i] * y[i];
    zeros += y[i] == 0;
    largest = std::max(largest, std::fabs(y[i]));
    loosest = std::max(loosest, tolerance[i]);
  }
  const double share = y.size() < 100 ? 0.7 : 0.3;  // a few small integers may well cancel
  group.check(norm > 0 && static_cast<double>(zeros) < share * static_cast<double>(y.size()) && loosest < largest,
              "%s: a useless reference: norm %g, %zu of %zu zeros, tolerance %g", description, norm, zeros, y.size(),
              loosest);
}

void compare_outputs(Group& group, const void* y, int64_t rows, int64_t columns, int64_t stride, Float dtype,
                     const std::vector<double>& expected, const std::vector<double>& tolerance,
                     const char* description) {
  int64_t wrong = 0, first = -1;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      const size_t at = static_cast<size_t>(i * columns + j);
      const uint32_t pattern = get(y, i * stride + j, dtype);
      const double error = std::fabs(decode(pattern, dtype) - expected[at]);
      const bool ok = tolerance[at] == 0 ? pattern == encode(expected[at], dtype) : error <= tolerance[at];
      if (tolerance[at] > 0 && error <= tolerance[at]) group.error(error / tolerance[at]);
      if (!ok && wrong++ == 0) first = static_cast<int64_t>(at);
    }
  if (wrong > 0) {
    const int64_t i = first / columns, j = first % columns;
    group.check(false, "%s: %lld of %lld outputs wrong, first [%lld, %lld]: %.9g, expected %.9g +- %.3g", description,
                static_cast<long long>(wrong), static_cast<long long>(rows * columns), static_cast<long long>(i),
                static_cast<long long>(j), decode(get(y, i * stride + j, dtype), dtype),
                expected[static_cast<size_t>(first)], tolerance[static_cast<size_t>(first)]);
  } else {
    group.check(true, "%s", description);
  }
  const unsigned char* bytes = static_cast<const unsigned char*>(y);
  const int64_t size = w8a16::bytes_of(dtype);
  bool clean = true;
  for (int64_t i = 0; i + 1 < rows; ++i)
    for (int64_t b = (i * stride + columns) * size; b < (i + 1) * stride * size; ++b) clean &= bytes[b] == kUnwritten;
  if (stride > columns && rows > 1) group.check(clean, "%s: written between the rows", description);
}

void run_linear(Group& group, const w8a16::Variant& variant, const LinearCase& c, bool wide, Placement placement,
                LinearBuffers& b) {
  const Shape& s = c.shape;
  char description[200];
  snprintf(description, sizeof description, "m %lld k %lld n %lld, bias %d, strides +%lld +%lld +%lld, %s",
           static_cast<long long>(s.m), static_cast<long long>(s.k), static_cast<long long>(s.n), c.layout.bias,
           static_cast<long long>(c.layout.x_extra), static_cast<long long>(c.layout.q_extra),
           static_cast<long long>(c.layout.y_extra), name_of(placement));
  now_running("%s linear %s: %s", variant.name, wide ? "wide" : "narrow", description);
  const Float dtype = c.layout.dtype;
  const Bytes unwritten(static_cast<size_t>(extent(s.m, s.n, c.y_stride()) * w8a16::bytes_of(dtype)), kUnwritten);
  w8a16::Linear p = {};
  p.x = b.x.place(c.x, placement);
  p.x_stride = c.x_stride();
  p.q = static_cast<const int8_t*>(b.q.place(c.q, placement));
  p.q_stride = c.q_stride();
  p.scales = {b.scales.place(c.scales, placement), c.layout.scales_dtype};
  p.bias = {c.layout.bias ? b.bias.place(c.bias, placement) : nullptr, c.layout.bias_dtype};
  p.y = b.y.place(unwritten, false, placement);
  p.y_stride = c.y_stride();
  p.m = s.m, p.k = s.k, p.n = s.n;
  p.dtype = dtype;
  p.wide = wide;
  const bool done = variant.linear(p);
  compare_outputs(group, b.y.data(), s.m, s.n, c.y_stride(), dtype, c.y, c.tolerance, description);
  const bool inputs = b.x.content_is(c.x) && b.q.content_is(c.q) && b.scales.content_is(c.scales) &&
                      (!c.layout.bias || b.bias.content_is(c.bias));
  const bool around = b.x.surroundings_intact() && b.q.surroundings_intact() && b.scales.surroundings_intact() &&
                      b.y.surroundings_intact() && (!c.layout.bias || b.bias.surroundings_intact());
  group.check(done && inputs && around && workspace_intact(), "%s: written outside of the output", description);
}

}  // namespace native_test
