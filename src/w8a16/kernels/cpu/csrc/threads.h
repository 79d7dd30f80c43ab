// One parallel loop for all of this library, on torch's own threads.

#pragma once

#include <stdint.h>

namespace w8a16 {

using Body = void (*)(int64_t begin, int64_t end, void* context);

// The functions of the loaded torch (torch 2.10 and newer export them); without them all runs on the
// calling thread. Set once, at load.
struct Threads {
  int32_t (*parallel_for)(int64_t begin, int64_t end, int64_t grain, Body body, void* context);
  int32_t (*count)(uint32_t* threads);
};
void use_threads(Threads threads);

int64_t thread_count();
// Calls body on ranges that cover 0..parts; returns when all are done.
void parallel(int64_t parts, Body body, void* context);

}  // namespace w8a16
