// One weight to quantize, the law applied to it value by value, and one run of a kernel on it.

#pragma once

#include <vector>

#include "harness.h"
#include "kernels.h"
#include "memory.h"
#include "numbers.h"

namespace native_test {

struct RowErrors {
  double signal, noise, worst;                    // as kernels.h defines them
  double signal_slack, noise_slack, worst_slack;  // what float32 arithmetic may add
};

struct QuantizeCase {
  int64_t n, k, stride;
  Float dtype;
  Bytes w;
  std::vector<float> scales;
  std::vector<int8_t> codes;  // [n, k]
  std::vector<RowErrors> errors;
  std::vector<bool> written;  // rows with NaN or Inf are not
  w8a16::QuantizeResult result;
};

// Values [n, k] are rounded to the type first.
QuantizeCase quantize_case(const std::vector<double>& values, int64_t n, int64_t k, int64_t stride, Float dtype);

struct QuantizeBuffers {
  Watched w, q, scales, errors;
};

// Codes and scales to the bit, errors within the slack, counts, and nothing else written.
void run_quantize(Group& group, const w8a16::Variant& variant, const QuantizeCase& c, bool errors, bool flush_to_zero,
                  Placement placement, QuantizeBuffers& buffers, const char* description);

}  // namespace native_test
