// Every pattern of the half types through every load and store of the kernels, and every rounding.
//
// A linear problem with one activation of 1 and codes of 1 copies its scales to its outputs, from the
// scales' type to the activations'; a gather does the same element by element, through the tail code.

#include <string.h>

#include <cmath>
#include <string>
#include <vector>

#include "harness.h"
#include "numbers.h"
#include "tests.h"

namespace native_test {

namespace {

std::vector<uint32_t> copied_by_linear(const w8a16::Variant& variant, const Bytes& values, int64_t n, Float from,
                                       Float to, bool wide) {
  const std::vector<int8_t> q(static_cast<size_t>(n), 1);
  const double one = 1;
  const Bytes x = bytes_of(&one, 1, to);
  Bytes y(static_cast<size_t>(n * w8a16::bytes_of(to)));
  w8a16::Linear p = {};
  p.x = x.data(), p.x_stride = 1, p.q = q.data(), p.q_stride = 1;
  p.scales = {values.data(), from};
  p.y = y.data(), p.y_stride = n;
  p.m = 1, p.k = 1, p.n = n;
  p.dtype = to;
  p.wide = wide;
  variant.linear(p);
  std::vector<uint32_t> found(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) found[static_cast<size_t>(i)] = get(y.data(), i, to);
  return found;
}

// The same through the bias, with no activations at all: 0 * 1 + bias.
std::vector<uint32_t> copied_by_bias(const w8a16::Variant& variant, const Bytes& values, int64_t n, Float from,
                                     Float to, bool wide) {
  const std::vector<float> ones(static_cast<size_t>(n), 1.0f);
  Bytes y(static_cast<size_t>(n * w8a16::bytes_of(to)));
  w8a16::Linear p = {};
  p.x = y.data(), p.q = reinterpret_cast<const int8_t*>(y.data());
  p.scales = {ones.data(), Float::f32};
  p.bias = {values.data(), from};
  p.y = y.data(), p.y_stride = n;
  p.m = 1, p.n = n;
  p.dtype = to;
  p.wide = wide;
  variant.linear(p);
  std::vector<uint32_t> found(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) found[static_cast<size_t>(i)] = get(y.data(), i, to);
  return found;
}

std::vector<uint32_t> copied_by_gather(const w8a16::Variant& variant, const Bytes& values, int64_t n, Float from,
                                       Float to) {
  const std::vector<int8_t> q(static_cast<size_t>(n), 1);
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < n; ++i) indices.push_back(i);
  Bytes y(static_cast<size_t>(n * w8a16::bytes_of(to)));
  w8a16::Gather p = {};
  p.indices = indices.data(), p.q = q.data(), p.q_stride = 1;
  p.scales = {values.data(), from};
  p.y = y.data();
  p.m = n, p.k = 1;
  p.dtype = to;
  variant.gather(p);
  std::vector<uint32_t> found(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) found[static_cast<size_t>(i)] = get(y.data(), i, to);
  return found;
}

void compare(Group& group, const std::vector<uint32_t>& found, const std::vector<double>& values, Float to,
             bool signed_zero, const char* how) {
  for (size_t i = 0; i < found.size(); ++i) {
    const uint32_t expected = encode(values[i] == 0 && !signed_zero ? 0.0 : values[i], to);
    const bool ok = std::isnan(values[i]) ? std::isnan(decode(found[i], to)) : found[i] == expected;
    group.check(ok, "%s: %.9g became %#x, expected %#x", how, values[i], found[i], expected);
  }
}

// `values` as they lie in `bytes`.
void all_ways(Group& group, const w8a16::Variant& variant, const std::vector<double>& values, const Bytes& bytes,
              Float from, Float to) {
  const int64_t n = static_cast<int64_t>(values.size());
  for (bool wide : {false, true}) {
    compare(group, copied_by_linear(variant, bytes, n, from, to, wide), values, to, true, "as scales");
    compare(group, copied_by_bias(variant, bytes, n, from, to, wide), values, to, false, "as bias");
  }
  compare(group, copied_by_gather(variant, bytes, n, from, to), values, to, true, "by gather");
}

void every_pattern(Group& group, const w8a16::Variant& variant, Float from, Float to) {
  std::vector<double> values;
  Bytes bytes(65536 * 2);
  for (uint32_t pattern = 0; pattern < 65536; ++pattern) {
    put(bytes.data(), pattern, from, pattern);
    values.push_back(decode(pattern, from));
  }
  all_ways(group, variant, values, bytes, from, to);
}

// Activations of a half type times the unit matrix give themselves back.
void every_activation(Group& group, const w8a16::Variant& variant, Float dtype) {
  constexpr int64_t k = 19, m = (65536 + k - 1) / k;
  std::vector<double> values(static_cast<size_t>(m * k), 0.0);
  for (uint32_t pattern = 0; pattern < 65536; ++pattern)
    if (std::isfinite(decode(pattern, dtype))) values[pattern] = decode(pattern, dtype);
  const Bytes x = bytes_of(values.data(), m * k, dtype);
  std::vector<int8_t> unit(static_cast<size_t>(k * k), 0);
  for (size_t i = 0; i < static_cast<size_t>(k); ++i) unit[i * static_cast<size_t>(k) + i] = 1;
  const std::vector<float> ones(static_cast<size_t>(k), 1.0f);
  for (bool wide : {false, true}) {
    Bytes y(x.size());
    w8a16::Linear p = {};
    p.x = x.data(), p.x_stride = k, p.q = unit.data(), p.q_stride = k;
    p.scales = {ones.data(), Float::f32};
    p.y = y.data(), p.y_stride = k;
    p.m = m, p.k = k, p.n = k;
    p.dtype = dtype;
    p.wide = wide;
    variant.linear(p);
    std::vector<uint32_t> found(values.size());
    for (size_t i = 0; i < found.size(); ++i) found[i] = get(y.data(), static_cast<int64_t>(i), dtype);
    compare(group, found, values, dtype, false, "as activations");
  }
}

// float32 values at and around every value of the half type and every middle between two of them, and a
// sample of all patterns with every kind of NaN.
void every_rounding(Group& group, const w8a16::Variant& variant, Float to) {
  std::vector<uint32_t> patterns = {0x7f800001, 0xff800001, 0x7fbfffff, 0x7f80ffff, 0xffffffff,
                                    0x7fc00000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x00000001,
                                    0x80000001, 0x007fffff, 0x00800000};
  const uint32_t infinity = to == Float::bf16 ? 0x7f80 : 0x7c00, step = options.quick ? 13 : 1;
  for (uint32_t half = 0; half < infinity; half += step) {
    const double low = decode(half, to),
                 high = half + 1 < infinity ? decode(half + 1, to) : 2 * low - decode(half - 1, to);
    for (double middle : {low, (low + high) / 2}) {
      const uint32_t word = encode(middle, Float::f32);
      for (uint32_t near : {word - (word > 0), word, word + 1}) patterns.push_back(near | (half % 2 << 31));
    }
  }
  Random random(37);
  for (int i = 0; i < (options.quick ? 2000 : 100000); ++i) patterns.push_back(static_cast<uint32_t>(random.bits()));
  std::vector<double> values;
  Bytes bytes(patterns.size() * 4);
  for (size_t i = 0; i < patterns.size(); ++i) {
    put(bytes.data(), static_cast<int64_t>(i), Float::f32, patterns[i]);
    values.push_back(decode(patterns[i], Float::f32));
  }
  all_ways(group, variant, values, bytes, Float::f32, to);
}

}  // namespace

void test_conversions(const Variants& variants) {
  for (const w8a16::Variant* variant : variants)
    for (Float half : {Float::bf16, Float::f16}) {
      now_running("%s conversions %s", variant->name, name_of(half));
      Group group(std::string(variant->name) + " conversions " + name_of(half));
      every_pattern(group, *variant, half, Float::f32);
      every_pattern(group, *variant, half, half);
      every_activation(group, *variant, half);
      every_rounding(group, *variant, half);
    }
}

}  // namespace native_test
