// A stand-in for torch's threads: each part on a thread of its own, the last part first.

#pragma once

#include <stdint.h>

namespace native_test {

// While one of these lives, the kernels see so many threads.
class StandInThreads {
 public:
  explicit StandInThreads(uint32_t count);
  ~StandInThreads();
  StandInThreads(const StandInThreads&) = delete;
  // How many parts have been run since it was made.
  int64_t parts_run() const;
};

}  // namespace native_test
