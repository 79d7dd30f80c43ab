// CRC-32 of every length and alignment against a computation bit by bit, in one piece and in two.

#include <string>
#include <vector>

#include "harness.h"
#include "memory.h"
#include "numbers.h"
#include "tests.h"

namespace native_test {

namespace {

uint32_t bit_by_bit(uint32_t before, const uint8_t* data, int64_t bytes) {
  uint32_t crc = ~before;
  for (int64_t i = 0; i < bytes; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
  }
  return ~crc;
}

}  // namespace

void test_crc32(const Variants& variants) {
  Group group("crc32: every length, alignment and start against a computation bit by bit");
  Random random(7);
  Watched watched;
  for (const w8a16::Variant* variant : variants) {
    const char check[] = "123456789";
    group.check(variant->crc32(0, check, 9) == 0xcbf43926u, "not the CRC-32 of zlib");
    group.check(variant->crc32(0, nullptr, 0) == 0, "of nothing");
    for (int64_t length = 0; length <= 700; ++length) {
      Bytes content(static_cast<size_t>(length));
      for (uint8_t& byte : content) byte = static_cast<uint8_t>(random.below(256));
      const uint32_t before = static_cast<uint32_t>(random.below(int64_t{1} << 32));
      const uint32_t expected = bit_by_bit(before, content.data(), length);
      for (const Placement placement : {Placement::at_end, Placement::at_start, Placement::odd_end, Placement::odd_start}) {
        now_running("%s crc32: %lld bytes, %s", variant->name, static_cast<long long>(length), name_of(placement));
        const uint8_t* data = static_cast<const uint8_t*>(watched.place(content, placement));
        const int64_t first = length > 0 ? random.below(length + 1) : 0;
        group.check(variant->crc32(before, data, length) == expected, "another value");
        const uint32_t half = variant->crc32(before, data, first);
        group.check(variant->crc32(half, data + first, length - first) == expected, "another value in two parts");
      }
    }
  }
}

}  // namespace native_test
