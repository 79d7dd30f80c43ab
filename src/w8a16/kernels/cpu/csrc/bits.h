// float32 as its bits, and back.

#pragma once

#include <stdint.h>
#include <string.h>

namespace {

inline float float_of(uint32_t bits) {
  float a;
  memcpy(&a, &bits, sizeof a);
  return a;
}

inline uint32_t bits_of(float a) {
  uint32_t bits;
  memcpy(&bits, &a, sizeof bits);
  return bits;
}

}  // namespace
