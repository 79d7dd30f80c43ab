#include "quantize_case.h"

#include <string.h>

#include <algorithm>
#include <cmath>

#include "linear_case.h"

namespace native_test {

namespace {

constexpr float kSmallestScale = 0x1p-125f;  // docs/decisions/0002

// One row by the law: float32 scale, float32 division, ties to even, clamp before the cast.
void quantize_row(QuantizeCase& c, int64_t row, const std::vector<float>& w) {
  float largest = 0;
  bool finite = true;
  for (float value : w) {
    finite = finite && std::isfinite(value);
    largest = std::max(largest, std::fabs(value));
  }
  const size_t n = static_cast<size_t>(row);
  c.written[n] = finite;
  if (!finite) {
    ++c.result.nonfinite_rows;
    return;
  }
  const float scale = largest / 127.0f;
  if (!(scale >= kSmallestScale)) {
    c.result.underflow_rows += largest != 0;
    c.scales[n] = 1.0f;
    return;
  }
  c.scales[n] = scale;
  RowErrors& e = c.errors[n];
  double sizes = 0;
  for (int64_t k = 0; k < c.k; ++k) {
    const float value = w[static_cast<size_t>(k)];
    const float code = std::min(127.0f, std::max(-127.0f, std::nearbyint(value / scale)));
    c.codes[static_cast<size_t>(row * c.k + k)] = static_cast<int8_t>(code);
    const double steps = static_cast<double>(value) / scale, error = steps - code;
    e.signal += steps * steps;
    e.noise += error * error;
    e.worst = std::max(e.worst, 2 * std::fabs(error));
    sizes += std::fabs(error);
  }
  // An error is a difference of numbers up to 127, each within 2^-24 of itself; sums have up to k terms.
  const double each = 0x1p-16, sums = static_cast<double>(c.k + 16) * 0x1p-24;
  e.signal_slack = (sums + 0x1p-21) * e.signal;
  e.noise_slack = 2 * each * sizes + static_cast<double>(c.k) * each * each + sums * e.noise;
  e.worst_slack = 2 * each;
}

}  // namespace

QuantizeCase quantize_case(const std::vector<double>& values, int64_t n, int64_t k, int64_t stride, Float dtype) {
  QuantizeCase c = {};
  c.n = n, c.k = k, c.stride = stride;
  c.dtype = dtype;
  c.w = matrix_bytes(values, n, k, stride, dtype);
  const size_t rows = static_cast<size_t>(n);
  c.scales.assign(rows, 0.0f);
  c.codes.assign(static_cast<size_t>(n * k), 0);
  c.errors.assign(rows, RowErrors());
  c.written.assign(rows, false);
  std::vector<float> row(static_cast<size_t>(k));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < k; ++j)
      row[static_cast<size_t>(j)] = static_cast<float>(decode(get(c.w.data(), i * stride + j, dtype), dtype));
    quantize_row(c, i, row);
  }
  return c;
}

void run_quantize(Group& group, const w8a16::Variant& variant, const QuantizeCase& c, bool errors, bool flush_to_zero,
                  Placement placement, QuantizeBuffers& b, const char* description) {
  now_running("%s quantize %s: %s, n %lld k %lld, %s", variant.name, name_of(c.dtype), description,
              static_cast<long long>(c.n), static_cast<long long>(c.k), name_of(placement));
  const size_t rows = static_cast<size_t>(c.n), row_bytes = static_cast<size_t>(c.k);
  w8a16::Quantize p = {};
  p.w = b.w.place(c.w, placement);
  p.w_stride = c.stride;
  p.dtype = c.dtype;
  p.q = static_cast<int8_t*>(b.q.place(Bytes(rows * row_bytes, kUnwritten), placement));
  p.scales = static_cast<float*>(b.scales.place(Bytes(rows * sizeof(float), kUnwritten), false, placement));
  if (errors)
    p.errors = static_cast<float*>(b.errors.place(Bytes(3 * rows * sizeof(float), kUnwritten), false, placement));
  p.k = c.k, p.n = c.n;
  if (flush_to_zero) set_flush_to_zero(true);
  const w8a16::QuantizeResult result = variant.quantize(p);
  if (flush_to_zero) set_flush_to_zero(false);

  group.check(result.nonfinite_rows == c.result.nonfinite_rows && result.underflow_rows == c.result.underflow_rows,
              "%s: %lld rows with NaN or Inf and %lld too small, expected %lld and %lld", description,
              static_cast<long long>(result.nonfinite_rows), static_cast<long long>(result.underflow_rows),
              static_cast<long long>(c.result.nonfinite_rows), static_cast<long long>(c.result.underflow_rows));
  Bytes codes(rows * row_bytes, kUnwritten), scales(rows * sizeof(float), kUnwritten);
  for (size_t n = 0; n < rows; ++n) {
    if (!c.written[n]) continue;
    memcpy(scales.data() + n * sizeof(float), &c.scales[n], sizeof(float));
    if (row_bytes > 0) memcpy(codes.data() + n * row_bytes, c.codes.data() + n * row_bytes, row_bytes);
  }
  group.check(b.scales.content_is(scales), "%s: n %lld k %lld: scales differ", description,
              static_cast<long long>(c.n), static_cast<long long>(c.k));
  if (!b.q.content_is(codes)) {
    size_t i = 0;
    while (i + 1 < codes.size() && b.q.data()[i] == codes[i]) ++i;
    group.check(false, "%s: n %lld k %lld: code [%zu, %zu] is %d, expected %d", description,
                static_cast<long long>(c.n), static_cast<long long>(c.k), i / row_bytes, i % row_bytes,
                static_cast<int8_t>(b.q.data()[i]), static_cast<int8_t>(codes[i]));
  } else {
    group.check(true, "%s", description);
  }
  double signal = 0, noise = 0, worst = 0;
  int64_t zero_rows = 0;
  for (size_t n = 0; n < rows && errors && !flush_to_zero; ++n) {
    if (!c.written[n]) continue;
    double found[3];
    for (size_t i = 0; i < 3; ++i)
      found[i] = decode(get(b.errors.data(), static_cast<int64_t>(3 * n + i), Float::f32), Float::f32);
    const RowErrors& e = c.errors[n];
    const bool ok = std::fabs(found[0] - e.signal) <= e.signal_slack &&
                    std::fabs(found[1] - e.noise) <= e.noise_slack && std::fabs(found[2] - e.worst) <= e.worst_slack;
    group.check(ok && e.worst <= 1 + 0x1p-15, "%s: row %zu: errors %g %g %g, expected %g %g %g", description, n,
                found[0], found[1], found[2], e.signal, e.noise, e.worst);
    const double square = static_cast<double>(c.scales[n]) * static_cast<double>(c.scales[n]);
    signal += square * found[0], noise += square * found[1];
    worst = std::max(worst, found[2]);
    bool zero = true;
    for (int64_t k = 0; k < c.k; ++k)
      zero = zero && decode(get(c.w.data(), static_cast<int64_t>(n) * c.stride + k, c.dtype), c.dtype) == 0;
    zero_rows += zero;
  }
  // A compiler may multiply and add with one rounding, so the last bits of sums of doubles are its own.
  const auto near = [](double a, double b) { return std::fabs(a - b) <= 1e-13 * b; };
  if (errors && !flush_to_zero)
    group.check(near(result.signal, signal) && near(result.noise, noise) && result.largest == static_cast<float>(worst) &&
                    result.zero_rows == zero_rows,
                "%s: all rows: %g %g %g, %lld zero rows, expected %g %g %g, %lld", description, result.signal,
                result.noise, static_cast<double>(result.largest), static_cast<long long>(result.zero_rows), signal,
                noise, worst, static_cast<long long>(zero_rows));
  group.check(b.w.content_is(c.w) && b.w.surroundings_intact() && b.q.surroundings_intact() &&
                  b.scales.surroundings_intact() && (!errors || b.errors.surroundings_intact()),
              "%s: written outside of the output", description);
}

}  // namespace native_test
