#include "stand_in_threads.h"

#include <thread>
#include <vector>

#include "threads.h"

namespace native_test {

namespace {

uint32_t threads_now = 1;
int64_t parts = 0;

int32_t count_threads(uint32_t* threads) {
  *threads = threads_now;
  return 0;
}

int32_t parallel_for(int64_t begin, int64_t end, int64_t, w8a16::Body body, void* context) {
  parts += end - begin;
  std::vector<std::thread> threads;
  for (int64_t i = end; i-- > begin;) threads.emplace_back([=] { body(i, i + 1, context); });
  for (std::thread& thread : threads) thread.join();
  return 0;
}

}  // namespace

StandInThreads::StandInThreads(uint32_t count) {
  threads_now = count;
  parts = 0;
  w8a16::use_torch_threads({parallel_for, count_threads});
}
StandInThreads::~StandInThreads() { w8a16::use_torch_threads({nullptr, nullptr}); }
int64_t StandInThreads::parts_run() const { return parts; }

}  // namespace native_test
