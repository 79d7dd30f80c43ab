#include "harness.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmath>

namespace native_test {

Options options;

namespace {

int64_t total_passed = 0, total_failed = 0;
char running[400];

void crashed(int number) {
  char text[900];
  const int length =
      snprintf(text, sizeof text, "CRASH (signal %d) in %s\n%lld passed, %lld failed\n", number, running,
               static_cast<long long>(total_passed), static_cast<long long>(total_failed + 1));
  const ssize_t written = write(1, text, static_cast<size_t>(length));
  _exit(written > 0 ? 2 : 3);
}

}  // namespace

Group::~Group() {
  if (passed_ + failed_ == 0) {
    printf("  FAIL %s: nothing was compared\n", name_.c_str());
    ++failed_;
  }
  printf("%-58s %7lld passed", name_.c_str(), static_cast<long long>(passed_));
  if (failed_ > 0) printf(", %lld FAILED", static_cast<long long>(failed_));
  if (worst_ >= 0) printf("  (largest error %.3f of the tolerance)", worst_);
  printf("\n");
  fflush(stdout);
  total_passed += passed_;
  total_failed += failed_;
}

bool Group::check(bool ok, const char* format, ...) {
  if (ok) {
    ++passed_;
    return true;
  }
  if (++failed_ <= 5) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    printf("  FAIL %s: %s\n", name_.c_str(), text);
    fflush(stdout);
  }
  return false;
}

void Group::error(double share_of_tolerance) {
  if (share_of_tolerance > worst_) worst_ = share_of_tolerance;
}

void now_running(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(running, sizeof running, format, arguments);
  va_end(arguments);
}

void report_crashes() {
  for (int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) signal(number, crashed);
}

int finish() {
  printf("%lld passed, %lld failed\n", static_cast<long long>(total_passed), static_cast<long long>(total_failed));
  return total_failed == 0 && total_passed > 0 ? 0 : 1;
}

uint64_t Random::bits() {  // splitmix64
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

double Random::normal() {  // near enough: the sum of twelve uniform numbers would be as good
  double sum = -6;
  for (int i = 0; i < 3; ++i) {
    const uint64_t b = bits();
    for (int j = 0; j < 4; ++j) sum += static_cast<double>(b >> 16 * j & 0xffff) / 65536;
  }
  return sum;
}

}  // namespace native_test
