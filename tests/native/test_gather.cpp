// y[i] = q[index] * scales[index]: a float32 product, rounded once more where the output is a half type.

#include <string>

#include "linear_case.h"
#include "tests.h"

namespace native_test {

namespace {

struct GatherBuffers {
  Watched indices, q, scales, y;
};

void run(Group& group, const w8a16::Variant& variant, int64_t m, int64_t k, int64_t n, Float dtype,
         Float scales_dtype, Placement placement, Random& random, GatherBuffers& b) {
  now_running("%s gather: m %lld k %lld n %lld, %s", variant.name, static_cast<long long>(m),
              static_cast<long long>(k), static_cast<long long>(n), name_of(placement));
  const int64_t stride = k + random.below(2) * 3;
  std::vector<int8_t> q(static_cast<size_t>(n * k));
  for (int8_t& code : q) code = static_cast<int8_t>(random.between(-128, 127));
  std::vector<double> scales(static_cast<size_t>(n));
  for (double& scale : scales) scale = rounded(0.001 + random.uniform(), scales_dtype);
  Bytes indices(static_cast<size_t>(m) * sizeof(int64_t));
  std::vector<double> expected, exact(static_cast<size_t>(m * k), 0.0);
  bool some = m * k == 0;
  for (int64_t i = 0; i < m; ++i) {
    const int64_t row = i == 0 ? n - 1 : random.below(n);
    reinterpret_cast<int64_t*>(indices.data())[i] = row;
    for (int64_t j = 0; j < k; ++j) {
      const float product = static_cast<float>(q[static_cast<size_t>(row * k + j)]) *
                            static_cast<float>(scales[static_cast<size_t>(row)]);
      expected.push_back(rounded(static_cast<double>(product), dtype));
      some |= product != 0;
    }
  }
  const Bytes codes = codes_bytes(q, n, k, stride), factors = bytes_of(scales.data(), n, scales_dtype);
  const Bytes unwritten(static_cast<size_t>(m * k * w8a16::bytes_of(dtype)), kUnwritten);
  w8a16::Gather p = {};
  p.indices = static_cast<const int64_t*>(b.indices.place(indices, false, placement));
  p.q = static_cast<const int8_t*>(b.q.place(codes, placement));
  p.q_stride = stride;
  p.scales = {b.scales.place(factors, placement), scales_dtype};
  p.y = b.y.place(unwritten, false, placement);
  p.m = m, p.k = k;
  p.dtype = dtype;
  variant.gather(p);
  compare_outputs(group, b.y.data(), m, k, k, dtype, expected, exact, "gather");
  group.check((some || m * k < 8) && b.indices.content_is(indices) && b.q.content_is(codes) &&
                  b.scales.content_is(factors) && b.indices.surroundings_intact() && b.q.surroundings_intact() &&
                  b.scales.surroundings_intact() && b.y.surroundings_intact(),
              "written outside of the output");
}

}  // namespace

void test_gather(const Variants& variants) {
  const std::vector<int64_t> widths = {0,  1,  2,  3,  4,  5,  7,  8,   9,   15,  16,  17,  31,   32,
                                       33, 47, 48, 49, 63, 64, 65, 100, 127, 128, 129, 257, 1000, 4097};
  for (const w8a16::Variant* variant : variants)
    for (Float dtype : kFloats) {
      Group group(std::string(variant->name) + " gather " + name_of(dtype));
      Random random(13);
      GatherBuffers buffers;
      for (int64_t k : widths)
        for (int64_t m : {0, 1, 2, 17})
          for (Float scales_dtype : kFloats)
            for (int place = 0; place < 4; ++place)
              run(group, *variant, m, k, 1 + random.below(40), dtype, scales_dtype, static_cast<Placement>(place),
                  random, buffers);
    }
}

}  // namespace native_test
