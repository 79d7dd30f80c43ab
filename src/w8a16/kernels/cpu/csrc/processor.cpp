#include "processor.h"

#include <stdint.h>

#if defined(W8A16_X86)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace w8a16 {

const char* lacks_nothing() { return nullptr; }

#if defined(W8A16_X86)

namespace {

struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf) {
  Registers r = {0, 0, 0, 0};
#if defined(_MSC_VER)
  int values[4];
  __cpuid(values, 0);
  if (static_cast<uint32_t>(values[0]) < leaf) return r;
  __cpuidex(values, static_cast<int>(leaf), 0);
  r = {static_cast<uint32_t>(values[0]), static_cast<uint32_t>(values[1]), static_cast<uint32_t>(values[2]),
       static_cast<uint32_t>(values[3])};
#else
  __get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);
#endif
  return r;
}

bool has(uint32_t word, int bit) { return (word >> bit & 1) != 0; }

// The register state that the operating system saves on a task switch.
uint64_t saved_state() {
  if (!has(cpuid(1).ecx, 27)) return 0;
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
#endif
}

}  // namespace

const char* lacks_avx2() {
  const Registers one = cpuid(1), seven = cpuid(7);
  if (!has(seven.ebx, 5)) return "the processor has no AVX2";
  if (!has(one.ecx, 12)) return "the processor has no FMA";
  if (!has(one.ecx, 29)) return "the processor has no F16C";
  if (!has(one.ecx, 1)) return "the processor has no PCLMULQDQ";
  if ((saved_state() & 0x6) != 0x6) return "the operating system does not save AVX registers";
  return nullptr;
}

const char* lacks_avx512() {
  if (const char* reason = lacks_avx2()) return reason;
  const Registers seven = cpuid(7);
  if (!has(seven.ebx, 16)) return "the processor has no AVX-512F";
  if (!has(seven.ebx, 30)) return "the processor has no AVX-512BW";
  if (!has(seven.ebx, 31)) return "the processor has no AVX-512VL";
  if (!has(seven.ebx, 17)) return "the processor has no AVX-512DQ";
  if ((saved_state() & 0xe6) != 0xe6) return "the operating system does not save AVX-512 registers";
  return nullptr;
}

#endif

}  // namespace w8a16
