// What the machine could do at best: the two limits that every speed is compared with.

#pragma once

#include "bits.h"
#include "compiler.h"
#include "kernels.h"

namespace {

// Eight streams side by side, as the kernels have: one alone does not keep enough lines in flight.
uint64_t read_bytes(const void* data, int64_t bytes) {
  constexpr int kStreams = 8;
  const char* p = static_cast<const char*>(data);
  int64_t part = bytes / kStreams / 64 * 64;
  if (part > 8192) part -= part % 4096 + 64 * 5;  // streams a power of two apart would share cache sets
  Vec seen[kStreams];
  for (int stream = 0; stream < kStreams; ++stream) seen[stream] = zero();
  for (int64_t i = 0; i + 64 <= part; i += 64)
    W8A16_UNROLL
    for (int stream = 0; stream < kStreams; ++stream)
      W8A16_UNROLL
      for (int64_t j = 0; j < 64; j += 4 * kLanes)
        seen[stream] = larger_bits(seen[stream], load(reinterpret_cast<const float*>(p + stream * part + i + j)));
  for (int stream = 1; stream < kStreams; ++stream) seen[0] = larger_bits(seen[0], seen[stream]);
  float lanes[kLanes];
  store(lanes, seen[0]);
  uint64_t total = 0;
  for (float lane : lanes) total += bits_of(lane);
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
