// Rows gigabytes apart: every offset that a kernel computes is beyond 32 bits. Only the few pages that the
// rows lie in are ever touched, so this needs address space, not memory.

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <string>
#include <vector>

#include "linear_case.h"
#include "quantize_case.h"
#include "tests.h"

namespace native_test {

namespace {

constexpr int64_t kFar = (int64_t{1} << 30) + 24;  // elements between rows; the third lies beyond 2^31
constexpr int64_t kRows = 3, kColumns = 21;

// Memory for three rows of elements, kFar elements apart.
class FarRows {
 public:
  explicit FarRows(int64_t element) : bytes_(static_cast<size_t>((kRows * kFar + 64) * element)) {
    map_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  ~FarRows() {
    if (ok()) munmap(map_, bytes_);
  }
  FarRows(const FarRows&) = delete;
  bool ok() const { return map_ != MAP_FAILED; }
  void* data() const { return map_; }

 private:
  size_t bytes_;
  void* map_;
};

struct Data {
  std::vector<double> values;
  std::vector<int8_t> codes;
  std::vector<float> scales;

  Data() : scales(kColumns, 0.5f) {
    Random random(59);
    for (int64_t i = 0; i < kRows * kColumns; ++i) {
      values.push_back(static_cast<double>(random.between(1, 3)));
      codes.push_back(static_cast<int8_t>(random.between(1, 3)));
    }
  }
  double value(int64_t row, int64_t column) const { return values[static_cast<size_t>(row * kColumns + column)]; }
  int8_t code(int64_t row, int64_t column) const { return codes[static_cast<size_t>(row * kColumns + column)]; }
};

void run(Group& group, const w8a16::Variant& variant, Float dtype, const FarRows& x, const FarRows& q,
         const FarRows& y) {
  const Data d;
  for (int64_t i = 0; i < kRows; ++i)
    for (int64_t j = 0; j < kColumns; ++j) {
      put(x.data(), i * kFar + j, dtype, encode(d.value(i, j), dtype));
      static_cast<int8_t*>(q.data())[i * kFar + j] = d.code(i, j);
    }
  const int8_t* codes = static_cast<const int8_t*>(q.data());
  const w8a16::FloatVector scales = {d.scales.data(), Float::f32}, none = {nullptr, Float::f32};
  const auto found = [&](int64_t i, int64_t j) { return decode(get(y.data(), i * kFar + j, dtype), dtype); };

  for (bool wide : {false, true}) {
    now_running("%s far rows, linear, wide %d", variant.name, wide);
    variant.linear({x.data(), kFar, codes, kFar, scales, none, y.data(), kFar, kRows, kColumns, kRows, dtype, wide});
    for (int64_t i = 0; i < kRows; ++i)
      for (int64_t j = 0; j < kRows; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < kColumns; ++k) sum += d.value(i, k) * d.code(j, k) / 2;
        group.check(found(i, j) == rounded(sum, dtype), "linear, wide %d: [%d, %d] is %g, expected %g", wide,
                    static_cast<int>(i), static_cast<int>(j), found(i, j), sum);
      }
  }
  // dy = the first columns of x: [rows, rows]; q is [rows, columns].
  now_running("%s far rows, input gradient", variant.name);
  variant.linear_input_grad({x.data(), kFar, codes, kFar, scales, y.data(), kFar, kRows, kColumns, kRows, dtype});
  for (int64_t i = 0; i < kRows; ++i)
    for (int64_t j = 0; j < kColumns; ++j) {
      double sum = 0;
      for (int64_t n = 0; n < kRows; ++n) sum += d.value(i, n) * d.code(n, j) / 2;
      group.check(found(i, j) == sum, "gradient: %g, expected %g", found(i, j), sum);
    }
  now_running("%s far rows, gather", variant.name);
  const int64_t indices[] = {2, 0, 1};
  std::vector<unsigned char> out(static_cast<size_t>(3 * kColumns * 4));
  variant.gather({indices, codes, kFar, scales, out.data(), 3, kColumns, dtype});
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < kColumns; ++j)
      group.check(decode(get(out.data(), i * kColumns + j, dtype), dtype) == 0.5 * d.code(indices[i], j), "gather");
  now_running("%s far rows, quantize", variant.name);
  const QuantizeCase c = quantize_case(d.values, kRows, kColumns, kColumns, dtype);
  std::vector<int8_t> written(c.codes.size());
  std::vector<float> found_scales(static_cast<size_t>(kRows));
  variant.quantize({x.data(), kFar, dtype, written.data(), found_scales.data(), nullptr, kColumns, kRows});
  group.check(written == c.codes && found_scales == c.scales, "quantize");
}

}  // namespace

void test_far_rows(const Variants& variants) {
  for (Float dtype : kFloats) {
    const FarRows x(w8a16::bytes_of(dtype)), q(1), y(w8a16::bytes_of(dtype));
    if (!x.ok() || !q.ok() || !y.ok()) {
      printf("not tested: rows far apart, for lack of address space\n");
      return;
    }
    for (const w8a16::Variant* variant : variants) {
      Group group(std::string(variant->name) + " rows gigabytes apart " + name_of(dtype));
      run(group, *variant, dtype, x, q, y);
    }
  }
}

}  // namespace native_test
