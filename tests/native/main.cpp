// Tests of the native kernels without torch or Python: see build.sh for how to run them.
//
//   native_test [--quick] [--variant NAME]

#include <stdio.h>
#include <string.h>

#include "harness.h"
#include "tests.h"
#include "variants.h"

#if defined(W8A16_TEST_EMULATED_AVX512)
namespace w8a16 {
extern const Variant variant_avx512;  // runs anywhere: its intrinsics are compiled from SIMDe
}
#endif

using namespace native_test;

int main(int count, char** arguments) {
  for (int i = 1; i < count; ++i) {
    if (strcmp(arguments[i], "--quick") == 0) {
      options.quick = true;
    } else if (strcmp(arguments[i], "--variant") == 0 && i + 1 < count) {
      options.variant = arguments[++i];
    } else {
      fprintf(stderr, "usage: %s [--quick] [--variant NAME]\n", arguments[0]);
      return 2;
    }
  }
  Variants variants;
  const auto take = [&](const w8a16::Variant& variant) {
    if (options.variant.empty() || options.variant == variant.name) variants.push_back(&variant);
  };
#if defined(W8A16_TEST_EMULATED_AVX512)
  take(w8a16::variant_avx512);
#else
  for (int i = 0; i < w8a16::variant_count(); ++i) {
    const char* reason = w8a16::why_not(i);
    if (reason == nullptr) take(w8a16::variant_at(i));
    else printf("not tested: %s (%s)\n", w8a16::variant_at(i).name, reason);
  }
#endif
  if (variants.empty()) {
    fprintf(stderr, "no variant to test\n");
    return 2;
  }
  report_crashes();
  test_table(variants);
  test_conversions(variants);
  test_special_values(variants);
  test_crc32(variants);
  test_gather(variants);
  test_quantize(variants);
  test_linear(variants);
  test_input_grad(variants);
  test_slices(variants);
  test_grouped(variants);
  test_refined(variants);
  test_far_rows(variants);
  {
    Group group("subnormal numbers still exist in this process");
    volatile double smallest = 5e-324, half = 1e-310;
    group.check(smallest != 0 && half / 2 != 0, "something switched flush-to-zero on");
  }
  return finish();
}
