// y[i] = q[index] * scales[index]: a float32 product, rounded once more where the output is a half type.
// Without indices all rows, in their order.

#include <string>
#include <utility>

#include "linear_case.h"
#include "parallel_ops.h"
#include "stand_in_threads.h"
#include "tests.h"
#include "variants.h"

namespace native_test {

namespace {

struct GatherBuffers {
  Watched indices, q, scales, y;
};

void run(Group& group, const w8a16::Variant& variant, int64_t m, int64_t k, int64_t n, Float dtype,
         Float scales_dtype, bool all_rows, Placement placement, Random& random, GatherBuffers& b) {
  now_running("%s gather: m %lld k %lld n %lld, %s%s", variant.name, static_cast<long long>(m),
              static_cast<long long>(k), static_cast<long long>(n), name_of(placement), all_rows ? ", all rows" : "");
  const int64_t stride = k + random.below(2) * 3;
  std::vector<int8_t> q(static_cast<size_t>(n * k));
  for (int8_t& code : q) code = static_cast<int8_t>(random.between(-128, 127));
  std::vector<double> scales(static_cast<size_t>(n));
  for (double& scale : scales) scale = rounded(0.001 + random.uniform(), scales_dtype);
  Bytes indices(static_cast<size_t>(m) * sizeof(int64_t));
  std::vector<double> expected, exact(static_cast<size_t>(m * k), 0.0);
  bool some = m * k == 0;
  for (int64_t i = 0; i < m; ++i) {
    const int64_t row = all_rows ? i : i == 0 ? n - 1 : random.below(n);
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
  const void* placed = b.indices.place(indices, false, placement);
  p.indices = all_rows ? nullptr : static_cast<const int64_t*>(placed);
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

// Through the function that Python calls: the same bits on any number of threads.
void threads(const Variants& variants) {
  for (const w8a16::Variant* variant : variants) {
    int index = 0;
    while (index < w8a16::variant_count() && &w8a16::variant_at(index) != variant) ++index;
    if (index == w8a16::variant_count() || !w8a16::choose(index)) continue;  // only tested, not in the table
    for (Float dtype : kFloats) {
      Group group(std::string(variant->name) + " gather threads " + name_of(dtype));
      Random random(17);
      const std::vector<std::pair<int64_t, int64_t>> shapes = {{700, 400}, {3, 90001}, {40001, 9}};
      for (const auto& [m, k] : shapes)
        for (bool all_rows : {false, true}) {
          std::vector<int8_t> q(static_cast<size_t>(m * k));
          for (int8_t& code : q) code = static_cast<int8_t>(random.between(-128, 127));
          std::vector<float> scales;
          std::vector<int64_t> indices;
          for (int64_t i = 0; i < m; ++i) {
            scales.push_back(static_cast<float>(0.01 + random.uniform()));
            indices.push_back(all_rows ? i : random.below(m));
          }
          Bytes y[2];
          for (uint32_t count : {0u, 2u, 3u, 16u}) {
            now_running("%s gather on %u threads, m %lld", variant->name, count, static_cast<long long>(m));
            Bytes& out = y[count != 0];
            out.assign(static_cast<size_t>(m * k * w8a16::bytes_of(dtype)), kUnwritten);
            w8a16::Gather p = {indices.data(), q.data(), k, {scales.data(), Float::f32}, out.data(), m, k, dtype};
            if (count == 0) {
              variant->gather(p);
              continue;
            }
            if (all_rows) p.indices = nullptr;
            const StandInThreads threads(count);
            w8a16::gather(p);
            group.check(threads.parts_run() > 1, "m %lld: nothing to share", static_cast<long long>(m));
            group.check(y[0] == y[1], "m %lld k %lld: %u threads differ from one", static_cast<long long>(m),
                        static_cast<long long>(k), count);
          }
        }
    }
  }
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
              for (bool all_rows : {false, true})
                run(group, *variant, m, k, all_rows ? m : 1 + random.below(40), dtype, scales_dtype, all_rows,
                    static_cast<Placement>(place), random, buffers);
    }
  threads(variants);
}

}  // namespace native_test
