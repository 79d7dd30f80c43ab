// One parallel loop for all of this library, on torch's own threads: two pools would fight for the cores.

#pragma once

#include <stdint.h>

namespace w8a16 {

using Body = void (*)(int64_t begin, int64_t end, void* context);

// torch's own loop; torch 2.10 and newer export it.
struct TorchThreads {
  int32_t (*parallel_for)(int64_t begin, int64_t end, int64_t grain, Body body, void* context);
  int32_t (*count)(uint32_t* threads);
};

// The OpenMP runtime that an older torch runs on (GNU's interface): the same threads, one floor below.
struct OpenMp {
  void (*parallel)(void (*body)(void* context), void* context, unsigned threads, unsigned flags);
  int (*max_threads)();
  int (*in_parallel)();
};

// Set once, at load; where neither is, all runs on the calling thread.
void use_torch_threads(TorchThreads threads);
void use_openmp(OpenMp openmp);

int64_t thread_count();
// Calls body on ranges that cover 0..parts; returns when all are done.
void parallel(int64_t parts, Body body, void* context);

}  // namespace w8a16
