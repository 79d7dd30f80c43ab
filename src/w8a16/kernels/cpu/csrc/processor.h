// What the processor and the operating system offer; compiled without any extension.

#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#define W8A16_X86 1
#elif (defined(__aarch64__) && !defined(__AARCH64EB__)) || defined(_M_ARM64)
#define W8A16_ARM64 1
#endif

namespace w8a16 {

const char* lacks_nothing();
#if defined(W8A16_X86)
const char* lacks_avx2();
const char* lacks_avx512();
#endif

}  // namespace w8a16
