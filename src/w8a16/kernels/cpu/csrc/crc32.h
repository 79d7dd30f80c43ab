// CRC-32 (the polynomial of zlib, gzip and PNG) of a buffer, continued from the CRC of what is before it.
//
// Bits are reflected: the lowest bit of the first byte has the highest power of x.

#pragma once

#include <stdint.h>
#include <string.h>

namespace {

constexpr uint32_t kPolynomial = 0xedb88320u;
constexpr int kSlices = 8;

// slice[i][b]: what the byte b becomes when i more bytes follow it.
struct CrcTables {
  uint32_t slice[kSlices][256];
};

constexpr CrcTables make_crc_tables() {
  CrcTables tables = {};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ kPolynomial : crc >> 1;
    tables.slice[0][b] = crc;
  }
  for (int i = 1; i < kSlices; ++i)
    for (int b = 0; b < 256; ++b) {
      const uint32_t before = tables.slice[i - 1][b];
      tables.slice[i][b] = before >> 8 ^ tables.slice[0][before & 255];
    }
  return tables;
}

constexpr CrcTables kCrc = make_crc_tables();

// Eight bytes at a time. Source: M. Kounavis, F. Berry, "Novel Table Lookup-Based Algorithms for
// High-Performance CRC Generation", IEEE Transactions on Computers 57 (2008).
uint32_t crc32_by_tables(uint32_t crc, const uint8_t* p, int64_t bytes) {
  for (; bytes >= kSlices; bytes -= kSlices, p += kSlices) {
    const uint32_t low = crc ^ (p[0] | static_cast<uint32_t>(p[1]) << 8 | static_cast<uint32_t>(p[2]) << 16 |
                                static_cast<uint32_t>(p[3]) << 24);
    crc = kCrc.slice[7][low & 255] ^ kCrc.slice[6][low >> 8 & 255] ^ kCrc.slice[5][low >> 16 & 255] ^
          kCrc.slice[4][low >> 24] ^ kCrc.slice[3][p[4]] ^ kCrc.slice[2][p[5]] ^ kCrc.slice[1][p[6]] ^
          kCrc.slice[0][p[7]];
  }
  for (; bytes > 0; --bytes, ++p) crc = crc >> 8 ^ kCrc.slice[0][(crc ^ *p) & 255];
  return crc;
}

uint32_t crc32(uint32_t before, const void* data, int64_t bytes) {
  const uint8_t* p = static_cast<const uint8_t*>(data);
  uint32_t crc = ~before;
#if defined(W8A16_CARRYLESS_MULTIPLY)
  const int64_t folded = bytes >= 64 ? bytes / 16 * 16 : 0;
  if (folded > 0) crc = crc32_by_folding(crc, p, folded);
  p += folded, bytes -= folded;
#endif
  return ~crc32_by_tables(crc, p, bytes);
}

}  // namespace
