// What the machine could do at best: the two limits that every speed is compared with.

#pragma once

#include "compiler.h"
#include "kernels.h"

namespace {

uint64_t read_bytes(const void* data, int64_t bytes) {
  const char* p = static_cast<const char*>(data);
  uint64_t sums[16] = {};
  for (int64_t i = 0; i + 128 <= bytes; i += 128) {
    uint64_t words[16];
    prefetch(p + i + 2048);
    memcpy(words, p + i, sizeof words);
    for (int j = 0; j < 16; ++j) sums[j] += words[j];
  }
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

int64_t multiply_add(int64_t rounds, float* sink) {
  constexpr int kChains = kRowsWide * kVectorsWide;
  Vec acc[kChains];
  const Vec a = splat(0.999f), b = splat(0.001f);
  W8A16_UNROLL
  for (int j = 0; j < kChains; ++j) acc[j] = in_register(splat(static_cast<float>(j)));
  for (int64_t i = 0; i < rounds; ++i) {
    W8A16_UNROLL
    for (int j = 0; j < kChains; ++j) acc[j] = fma(acc[j], a, b);
  }
  W8A16_UNROLL
  for (int j = 1; j < kChains; ++j) acc[0] = add(acc[0], acc[j]);
  *sink = sum_lanes(acc[0]);
  return rounds * kChains * kLanes * 2;
}

}  // namespace
