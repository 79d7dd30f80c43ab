// The law of the weights: codes and scales to the bit, for every kind of row.

#include <stdio.h>

#include <cmath>
#include <string>

#include "parallel_ops.h"
#include "quantize_case.h"
#include "tests.h"
#include "threads.h"
#include "variants.h"

namespace native_test {

namespace {

const double kInfinity = HUGE_VAL, kNan = std::nan("");

struct Run {
  Group& group;
  const w8a16::Variant& variant;
  Float dtype;
  QuantizeBuffers& buffers;

  void operator()(const std::vector<double>& values, int64_t n, int64_t k, int64_t gap, Placement placement,
                  const char* description, bool flush_to_zero = false) const {
    const QuantizeCase c = quantize_case(values, n, k, k + gap, dtype);
    run_quantize(group, variant, c, true, flush_to_zero, placement, buffers, description);
    run_quantize(group, variant, c, false, flush_to_zero, placement, buffers, description);
  }
};

// Rows of every size that the type has, among them zero rows, rows of one value, and rows with NaN or Inf.
std::vector<double> mixed_rows(int64_t n, int64_t k, Float dtype, bool finite, Random& random) {
  const double from = dtype == Float::f16 ? -6 : -36, to = dtype == Float::f16 ? 4 : 37;
  std::vector<double> values(static_cast<size_t>(n * k));
  for (int64_t i = 0; i < n; ++i) {
    const double size = std::pow(10.0, from + (to - from) * random.uniform());
    for (int64_t j = 0; j < k; ++j) {
      double& value = values[static_cast<size_t>(i * k + j)];
      value = i % 11 == 3 ? 0.0 : i % 11 == 5 ? -size : size * random.normal();
      if (i % 11 == 7 && j > 0) value /= 1000;  // one large value and many small ones
    }
    if (!finite && k > 0 && i % 11 == 9)
      values[static_cast<size_t>(i * k + random.below(k))] = i % 2 != 0        ? kNan
                                                             : random.below(2) ? kInfinity
                                                                               : -kInfinity;
  }
  return values;
}

void every_shape(const Run& run) {
  Random random(17);
  int64_t turn = 0;
  for (int64_t k : {0,  1,  2,  3,  4,  5,   7,   8,   9,   15,  16,  17,   31,   32,   33,   47,
                    48, 49, 63, 64, 65, 100, 127, 128, 129, 255, 257, 1000, 4096, 4097, 11008})
    for (int64_t n : {0, 1, 2, 23}) {
      if (options.quick && k > 300) continue;
      const int64_t gap = turn % 3 == 0 ? 5 : 0;
      const std::vector<double> values = mixed_rows(n, k, run.dtype, false, random);
      for (int place = 0; place < 4; ++place) run(values, n, k, gap, static_cast<Placement>(place), "mixed rows");
      ++turn;
    }
}

// The largest magnitude, NaN and Inf at every position of a row.
void every_position(const Run& run) {
  Random random(19);
  for (int64_t k : {1, 4, 7, 8, 16, 17, 31, 33, 64, 67, 129}) {
    if (options.quick && k > 40) continue;
    for (double special : {50.0, -50.0, kNan, -kNan, kInfinity, -kInfinity}) {
      std::vector<double> values(static_cast<size_t>(k * k));
      for (double& value : values) value = random.normal();
      for (int64_t i = 0; i < k; ++i) values[static_cast<size_t>(i * k + i)] = special;
      run(values, k, k, 0, Placement::at_end, "one special value");
    }
  }
}

// Quotients at a half and a few units beside it, where a product with the reciprocal would go wrong.
void halves(const Run& run) {
  Random random(23);
  std::vector<double> values;
  const int64_t k = 127 * 7 + 1, rows = options.quick ? 3 : 40;
  for (int64_t i = 0; i < rows; ++i) {
    const bool half_type = run.dtype != Float::f32;
    const float largest = half_type || i == 0 ? 127.0f * std::ldexp(1.0f, static_cast<int>(i % 9) - 4)
                                              : static_cast<float>(std::exp(random.normal() * 10));
    const float scale = largest / 127.0f;
    values.push_back(largest);
    for (int j = 0; j < 127; ++j)
      for (int step = -3; step <= 3; ++step) {
        const float sign = (j + step) % 2 != 0 ? -1.0f : 1.0f;
        float value = static_cast<float>((j + 0.5) * scale);
        for (int s = 0; s < std::abs(step) && !half_type; ++s)
          value = std::nextafter(value, step > 0 ? HUGE_VALF : 0);
        values.push_back(value > largest ? 0 : sign * value);
      }
  }
  run(values, rows, k, 0, Placement::at_start, "halves");
}

// Every positive finite value of a half type as the largest of a row: its code is 127.
void every_largest(const Run& run) {
  const uint32_t last = run.dtype == Float::bf16 ? 0x7f7f : 0x7bff, step = options.quick ? 37 : 1;
  const int64_t k = 5;
  std::vector<double> values;
  for (uint32_t pattern = 1; pattern <= last; pattern += step) {
    const double largest = decode(pattern, run.dtype);
    for (int64_t j = 0; j < k; ++j)
      values.push_back(j == pattern % k ? (pattern % 2 != 0 ? largest : -largest) : largest * (j - 2.0) / 4);
  }
  const int64_t n = static_cast<int64_t>(values.size()) / k;
  const QuantizeCase c = quantize_case(values, n, k, k, run.dtype);
  int64_t full = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j) full += std::abs(c.codes[static_cast<size_t>(i * k + j)]) == 127;
  run.group.check(full + c.result.underflow_rows >= n && c.result.underflow_rows < n / 2 &&
                      (run.dtype == Float::bf16) == (c.result.underflow_rows > 0),
                  "the reference gives 127 to %lld of %lld rows", static_cast<long long>(full),
                  static_cast<long long>(n));
  run_quantize(run.group, run.variant, c, false, false, Placement::at_end, run.buffers, "every largest value");
}

// Around the smallest scale, and with subnormal weights: the same in every mode of the processor.
std::vector<double> tiny_rows(int64_t k) {
  std::vector<double> values;
  for (double largest : {0x1p-149, 0x1p-130, 0x1p-126, 127 * 0x1p-126, 127 * 0x1p-125 * (1 - 0x1p-24), 127 * 0x1p-125,
                         127 * 0x1p-125 * (1 + 0x1p-22), 127 * 0x1p-124, 1.0})
    for (int64_t j = 0; j < k; ++j)
      values.push_back(j == k / 2 ? largest : largest * std::ldexp(j % 3 - 1.0, static_cast<int>(-j % 30)));
  for (int64_t j = 0; j < k; ++j)  // scale 2^-125; the others are subnormal, the last just below half a step
    values.push_back(j == 0       ? 127 * 0x1p-125
                     : j % 2 != 0 ? 0x1p-126 * (1 - 0x1p-22)
                                  : -0x1p-140 * static_cast<double>(j));
  return values;
}

void threads(const w8a16::Variant& variant) {
  int index = 0;
  while (index < w8a16::variant_count() && &w8a16::variant_at(index) != &variant) ++index;
  if (index == w8a16::variant_count() || !w8a16::choose(index)) return;
  Group group(std::string(variant.name) + " quantize in parts");
  Random random(29);
  for (Float dtype : kFloats) {
    const int64_t n = 301, k = 1000;
    const QuantizeCase c = quantize_case(mixed_rows(n, k, dtype, false, random), n, k, k, dtype);
    std::vector<int8_t> codes(static_cast<size_t>(n * k));
    std::vector<float> scales(static_cast<size_t>(n)), errors(static_cast<size_t>(3 * n));
    w8a16::use_torch_threads({[](int64_t begin, int64_t end, int64_t, w8a16::Body body, void* context) {
                                for (int64_t i = end; i-- > begin;) body(i, i + 1, context);
                                return int32_t{0};
                              },
                              [](uint32_t* count) { return *count = 7, int32_t{0}; }});
    const w8a16::QuantizeResult result =
        w8a16::quantize({c.w.data(), k, dtype, codes.data(), scales.data(), errors.data(), k, n});
    w8a16::use_torch_threads({nullptr, nullptr});
    int64_t different = 0;
    for (size_t i = 0; i < codes.size(); ++i)
      different += c.written[i / static_cast<size_t>(k)] && codes[i] != c.codes[i];
    for (size_t i = 0; i < scales.size(); ++i) different += c.written[i] && scales[i] != c.scales[i];
    group.check(different == 0, "%lld codes or scales differ", static_cast<long long>(different));
    group.check(result.nonfinite_rows == c.result.nonfinite_rows &&
                    result.underflow_rows == c.result.underflow_rows && c.result.nonfinite_rows > 10,
                "counts of rows differ");
  }
}

}  // namespace

void test_quantize(const Variants& variants) {
  for (const w8a16::Variant* variant : variants) {
    for (Float dtype : kFloats) {
      const std::string name = std::string(variant->name) + " quantize " + name_of(dtype);
      QuantizeBuffers buffers;
      {
        Group group(name + ", mixed rows");
        every_shape({group, *variant, dtype, buffers});
      }
      {
        Group group(name + ", every position");
        every_position({group, *variant, dtype, buffers});
      }
      {
        Group group(name + ", halves and largest values");
        halves({group, *variant, dtype, buffers});
        if (dtype != Float::f32) every_largest({group, *variant, dtype, buffers});
      }
      Group group(name + ", tiny rows, flush to zero");
      const bool known = set_flush_to_zero(false);
      Random random(31);
      for (bool flush : {false, true}) {
        if (flush && !known) continue;
        const Run run = {group, *variant, dtype, buffers};
        for (int64_t k : {2, 9, 40}) run(tiny_rows(k), 10, k, 0, Placement::at_end, "tiny rows", flush);
        run(mixed_rows(50, 99, dtype, true, random), 50, 99, 0, Placement::at_end, "all sizes", flush);
      }
    }
    threads(*variant);
  }
}

}  // namespace native_test
