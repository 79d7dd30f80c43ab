#include "threads.h"

namespace w8a16 {

static Threads torch_threads = {nullptr, nullptr};

void use_threads(Threads threads) { torch_threads = threads; }

int64_t thread_count() {
  uint32_t threads = 1;
  if (torch_threads.count == nullptr || torch_threads.count(&threads) != 0) return 1;
  return threads;
}

void parallel(int64_t parts, Body body, void* context) {
  if (parts <= 1 || torch_threads.parallel_for == nullptr) {
    if (parts > 0) body(0, parts, context);
    return;
  }
  torch_threads.parallel_for(0, parts, 1, body, context);
}

}  // namespace w8a16
