// The parts of the program. Each takes the variants that this machine can run.

#pragma once

#include <vector>

#include "kernels.h"

namespace native_test {

using Variants = std::vector<const w8a16::Variant*>;

void test_linear(const Variants& variants);
void test_input_grad(const Variants& variants);
void test_slices(const Variants& variants);
void test_grouped(const Variants& variants);
void test_refined(const Variants& variants);
void test_quantize(const Variants& variants);
void test_gather(const Variants& variants);
void test_crc32(const Variants& variants);
void test_conversions(const Variants& variants);
void test_special_values(const Variants& variants);
void test_far_rows(const Variants& variants);
void test_table(const Variants& variants);

}  // namespace native_test
