#include <stdlib.h>

#include "kernels.h"

namespace w8a16 {

namespace {

struct Slot {
  float* data = nullptr;
  int64_t floats = 0;
  ~Slot() { free(block); }
  void* block = nullptr;
};

thread_local Slot slots[2];

}  // namespace

float* workspace(int slot, int64_t floats) {
  Slot& s = slots[slot];
  if (floats <= s.floats) return s.data;
  free(s.block);
  s.block = malloc(static_cast<size_t>(floats) * sizeof(float) + 64);
  if (s.block == nullptr) {
    s.data = nullptr;
    s.floats = 0;
    return nullptr;
  }
  const uintptr_t address = (reinterpret_cast<uintptr_t>(s.block) + 63) / 64 * 64;
  s.data = reinterpret_cast<float*>(address);
  s.floats = floats;
  return s.data;
}

}  // namespace w8a16
