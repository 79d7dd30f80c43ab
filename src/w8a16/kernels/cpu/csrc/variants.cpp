#include "variants.h"

#include "processor.h"

namespace w8a16 {

#if defined(W8A16_X86)
extern const Variant variant_avx2;
#endif

namespace {

struct Row {
  const Variant* variant;
  const char* (*why_not)();
};

const Row kRows[] = {
#if defined(W8A16_X86)
    {&variant_avx2, lacks_avx2},
#endif
};
constexpr int kCount = sizeof kRows / sizeof kRows[0];

int first_that_runs() {
  for (int i = 0; i < kCount; ++i)
    if (kRows[i].why_not() == nullptr) return i;
  return kCount - 1;
}

int current = -1;

}  // namespace

int variant_count() { return kCount; }
const Variant& variant_at(int index) { return *kRows[index].variant; }
const char* why_not(int index) { return kRows[index].why_not(); }

int chosen_index() {
  if (current < 0) current = first_that_runs();
  return current;
}

bool choose(int index) {
  if (why_not(index) != nullptr) return false;
  current = index;
  return true;
}

const Variant& chosen() { return variant_at(chosen_index()); }

}  // namespace w8a16
