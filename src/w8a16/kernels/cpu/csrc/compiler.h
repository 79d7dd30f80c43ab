// All that differs between compilers (GCC, Clang, MSVC), in one place.

#pragma once

#if defined(__clang__) || defined(__GNUC__)
#define W8A16_INLINE inline __attribute__((always_inline))
#define W8A16_PREFETCH(address) __builtin_prefetch(address)
// Makes the compiler hold a vector in a register, instead of loading it once for every use. `kind` is
// the letter of the register class.
#define W8A16_HOLD(vector, kind) __asm__("" : "+" kind(vector))
#elif defined(_MSC_VER)
#define W8A16_INLINE __forceinline
#define W8A16_PREFETCH(address) static_cast<void>(address)
#define W8A16_HOLD(vector, kind) static_cast<void>(vector)
#else
#define W8A16_INLINE inline
#define W8A16_PREFETCH(address) static_cast<void>(address)
#define W8A16_HOLD(vector, kind) static_cast<void>(vector)
#endif

// Before a loop with a constant number of rounds: unroll it whole, so that the arrays it walks through
// become registers. W8A16_UNROLL_BY: that many rounds at a time. W8A16_UNROLL_STEPS: where that is not needed,
// only faster, and only with compilers that do not mix the rounds until the registers run out. Clang does
// (half the speed with Clang 14 for AVX2), and so does GCC for ARM, which schedules before it allocates.
#define W8A16_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define W8A16_UNROLL W8A16_PRAGMA(clang loop unroll(full))
#define W8A16_UNROLL_BY(rounds) W8A16_PRAGMA(clang loop unroll_count(rounds))
#define W8A16_UNROLL_STEPS W8A16_PRAGMA(clang loop unroll(disable))
#elif defined(__GNUC__)
#define W8A16_UNROLL W8A16_PRAGMA(GCC unroll 32)
#define W8A16_UNROLL_BY(rounds) W8A16_PRAGMA(GCC unroll rounds)
#if defined(__x86_64__)
#define W8A16_UNROLL_STEPS W8A16_UNROLL
#else
#define W8A16_UNROLL_STEPS W8A16_PRAGMA(GCC unroll 1)
#endif
#else
#define W8A16_UNROLL
#define W8A16_UNROLL_BY(rounds)
#define W8A16_UNROLL_STEPS
#endif

#if defined(_WIN32)
#define W8A16_EXPORT extern "C" __declspec(dllexport)
#else
#define W8A16_EXPORT extern "C" __attribute__((visibility("default")))
#endif
