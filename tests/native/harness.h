// Counting, naming and reporting of checks; random numbers; the options of the program.

#pragma once

#include <stdint.h>

#include <string>

namespace native_test {

// Checks under one name: one printed line when it ends. A group that compared nothing has failed.
class Group {
 public:
  explicit Group(const std::string& name) : name_(name) {}
  ~Group();
  Group(const Group&) = delete;
  // Counts one check; the first failures of a group are printed with the message.
  __attribute__((format(printf, 3, 4))) bool check(bool ok, const char* format, ...);
  // The largest error seen, in units of the tolerance: printed with the line.
  void error(double share_of_tolerance);

 private:
  std::string name_;
  int64_t passed_ = 0, failed_ = 0;
  double worst_ = -1;
};

// What runs right now, for the report of a crash.
__attribute__((format(printf, 1, 2))) void now_running(const char* format, ...);

// Reports a fault of memory as a failure, instead of dying silently.
void report_crashes();

// Prints "N passed, M failed"; the exit status of the program.
int finish();

// A small generator with a fixed seed: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t bits();
  int64_t below(int64_t bound) { return static_cast<int64_t>(bits() >> 11) % bound; }
  int64_t between(int64_t first, int64_t last) { return first + below(last - first + 1); }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double normal();

 private:
  uint64_t state_;
};

struct Options {
  bool quick = false;   // fewer and smaller shapes: for emulators and sanitizers
  std::string variant;  // empty: all that run here
};
extern Options options;

}  // namespace native_test
