// The table of variants, the two probes, and the workspace.

#include <stdlib.h>
#include <string.h>

#include <cmath>
#include <set>
#include <string>
#include <thread>

#include "harness.h"
#include "memory.h"
#include "tests.h"
#include "variants.h"

namespace shipped {
float* workspace(int slot, int64_t floats);
}

namespace native_test {

namespace {

void table() {
  Group group("table of variants");
  const int count = w8a16::variant_count();
  std::set<std::string> names;
  int first = -1;
  for (int i = 0; i < count; ++i) {
    names.insert(w8a16::variant_at(i).name);
    if (first < 0 && w8a16::why_not(i) == nullptr) first = i;
  }
  group.check(static_cast<int>(names.size()) == count, "names are not unique");
  group.check(strcmp(w8a16::variant_at(count - 1).name, "portable") == 0, "the last one is not the portable one");
  group.check(w8a16::why_not(count - 1) == nullptr, "the portable one does not run");
  group.check(w8a16::chosen_index() == first, "chosen is %d, the first that runs is %d", w8a16::chosen_index(),
              first);
  for (int i = 0; i < count; ++i) {
    const bool runs = w8a16::why_not(i) == nullptr;
    group.check(w8a16::choose(i) == runs, "choose(%d)", i);
    group.check((w8a16::chosen_index() == i) == runs, "chosen after choose(%d)", i);
    group.check(runs || strlen(w8a16::why_not(i)) > 10, "a reason for %d", i);
  }
  w8a16::choose(first);
}

void probes(const Variants& variants) {
  for (const w8a16::Variant* variant : variants) {
    Group group(std::string(variant->name) + " probes");
    now_running("%s probes", variant->name);
    Watched buffer;
    for (int64_t bytes : {0, 8, 127, 511, 512, 1023, 1024, 12800, 100000}) {
      const Bytes zeros(static_cast<size_t>(bytes), 0), ones(static_cast<size_t>(bytes), 1);
      for (Placement placement : {Placement::at_end, Placement::odd_start}) {
        const uint64_t nothing = variant->read(buffer.place(zeros, placement), bytes);
        const uint64_t something = variant->read(buffer.place(ones, placement), bytes);
        group.check(nothing == 0 && (something != 0 || bytes < 512), "read of %lld bytes",
                    static_cast<long long>(bytes));
      }
    }
    float sink = NAN;
    const int64_t one = variant->multiply_add(1, &sink), thousand = variant->multiply_add(1000, &sink);
    group.check(one > 0 && thousand == 1000 * one && std::isfinite(sink) && sink != 0, "multiply_add: %lld, %g",
                static_cast<long long>(one), static_cast<double>(sink));
    group.check(variant->wide_from >= 1, "wide_from");
  }
}

void workspaces() {
  Group group("workspace");
  now_running("workspace");
  float* kept[2] = {};
  for (int slot : {0, 1})
    for (int64_t floats : {1, 100, 100, 7, 5000, 4999}) {
      float* p = shipped::workspace(slot, floats);
      group.check(p != nullptr && reinterpret_cast<uintptr_t>(p) % 64 == 0, "an address that is no multiple of 64");
      memset(p, slot + 1, static_cast<size_t>(floats) * sizeof(float));
      kept[slot] = p;
    }
  group.check(kept[0] == shipped::workspace(0, 1) && kept[1] == shipped::workspace(1, 1), "memory is not kept");
  group.check(reinterpret_cast<unsigned char*>(kept[0])[0] == 1 && kept[0] != kept[1], "the two slots share memory");
  std::thread([&] {
    group.check(shipped::workspace(0, 1) != kept[0] && shipped::workspace(1, 1) != kept[1], "threads share memory");
  }).join();
  // Where memory is short: null, and the next request starts afresh. Sanitizers stop at such a request.
#if !defined(__SANITIZE_ADDRESS__)
  group.check(shipped::workspace(0, int64_t{1} << 58) == nullptr, "half a exabyte was granted");
  group.check(shipped::workspace(0, 10) != nullptr, "no memory after a refusal");
#endif
}

}  // namespace

void test_table(const Variants& variants) {
  table();
  probes(variants);
  workspaces();
}

}  // namespace native_test
