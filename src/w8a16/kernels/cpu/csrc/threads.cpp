#include "threads.h"

#include <atomic>

namespace w8a16 {

namespace {

TorchThreads torch_threads = {nullptr, nullptr};
OpenMp openmp = {nullptr, nullptr, nullptr};

// What the threads of an OpenMP region share: the next part that nobody has taken.
struct Region {
  Body body;
  void* context;
  int64_t parts;
  std::atomic<int64_t> next;
};

void take_parts(void* shared) {
  Region& region = *static_cast<Region*>(shared);
  for (int64_t part = region.next++; part < region.parts; part = region.next++)
    region.body(part, part + 1, region.context);
}

}  // namespace

void use_torch_threads(TorchThreads threads) {
  torch_threads = threads;
  openmp = {nullptr, nullptr, nullptr};
}

void use_openmp(OpenMp functions) {
  openmp = functions;
  torch_threads = {nullptr, nullptr};
}

int64_t thread_count() {
  uint32_t threads = 1;
  if (torch_threads.count != nullptr && torch_threads.count(&threads) == 0) return threads;
  if (openmp.parallel != nullptr && openmp.in_parallel() == 0) return openmp.max_threads();
  return 1;
}

void parallel(int64_t parts, Body body, void* context) {
  if (parts > 1 && torch_threads.parallel_for != nullptr) {
    torch_threads.parallel_for(0, parts, 1, body, context);
  } else if (parts > 1 && openmp.parallel != nullptr && openmp.in_parallel() == 0) {
    Region region = {body, context, parts, {0}};
    openmp.parallel(take_parts, &region, static_cast<unsigned>(parts), 0);
  } else if (parts > 0) {
    body(0, parts, context);
  }
}

}  // namespace w8a16
