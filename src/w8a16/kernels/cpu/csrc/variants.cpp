#include "variants.h"

#include <atomic>

#include "processor.h"

namespace w8a16 {

extern const Variant variant_avx512, variant_avx2, variant_neon, variant_portable;

namespace {

struct Row {
  const Variant* variant;
  const char* (*why_not)();
};

// W8A16_WITHOUT_X: the compiler could not build that variant.
const Row kRows[] = {
#if defined(W8A16_X86) && !defined(W8A16_WITHOUT_AVX512)
    {&variant_avx512, lacks_avx512},
#endif
#if defined(W8A16_X86) && !defined(W8A16_WITHOUT_AVX2)
    {&variant_avx2, lacks_avx2},
#endif
#if defined(W8A16_ARM64) && !defined(W8A16_WITHOUT_NEON)
    {&variant_neon, lacks_nothing},
#endif
    {&variant_portable, lacks_nothing},
};
constexpr int kCount = sizeof kRows / sizeof kRows[0];

int first_that_runs() {
  for (int i = 0; i < kCount; ++i)
    if (kRows[i].why_not() == nullptr) return i;
  return kCount - 1;
}

std::atomic<int> current{-1};

}  // namespace

int variant_count() { return kCount; }
const Variant& variant_at(int index) { return *kRows[index].variant; }
const char* why_not(int index) { return kRows[index].why_not(); }

int chosen_index() {
  if (current.load(std::memory_order_relaxed) < 0) current.store(first_that_runs(), std::memory_order_relaxed);
  return current.load(std::memory_order_relaxed);
}

bool choose(int index) {
  if (why_not(index) != nullptr) return false;
  current.store(index, std::memory_order_relaxed);
  return true;
}

const Variant& chosen() { return variant_at(chosen_index()); }

}  // namespace w8a16
