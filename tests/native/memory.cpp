#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels.h"

// The kernels' own workspace.cpp, compiled under another name: see shipped_workspace.cpp.
namespace shipped {
float* workspace(int slot, int64_t floats);
}

namespace native_test {

namespace {

constexpr size_t kAround = 256;              // watched bytes on the side where no page guards
constexpr unsigned char kAroundByte = 0xff;  // NaN in float32, bfloat16 and float16

size_t page() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

unsigned char* map_pages(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    fprintf(stderr, "cannot map %zu bytes\n", bytes);
    abort();
  }
  return static_cast<unsigned char*>(p);
}

void open_pages(unsigned char* first, size_t bytes) {
  if (mprotect(first, bytes, PROT_READ | PROT_WRITE) != 0) abort();
}

bool all_are(const unsigned char* p, size_t bytes, unsigned char value) {
  for (size_t i = 0; i < bytes; ++i)
    if (p[i] != value) return false;
  return true;
}

}  // namespace

const char* name_of(Placement placement) {
  static const char* names[] = {"at_end", "at_start", "odd_end", "odd_start"};
  return names[static_cast<int>(placement)];
}

Watched::~Watched() {
  if (map_ != nullptr) munmap(map_, map_bytes_);
}

void Watched::reserve(size_t bytes) {
  if (bytes <= usable_) return;
  if (map_ != nullptr) munmap(map_, map_bytes_);
  usable_ = (bytes + bytes / 2 + page() - 1) / page() * page();
  map_bytes_ = usable_ + 2 * page();
  map_ = map_pages(map_bytes_);
  first_ = map_ + page();
  open_pages(first_, usable_);
}

void* Watched::place(const Bytes& content, Placement placement) { return place(content, true, placement); }

void* Watched::place(const Bytes& content, bool odd_allowed, Placement placement) {
  bytes_ = content.size();
  reserve(bytes_ + 1 + kAround);
  const bool end = placement == Placement::at_end || placement == Placement::odd_end;
  const size_t shift = odd_allowed && (placement == Placement::odd_end || placement == Placement::odd_start);
  data_ = end ? first_ + usable_ - bytes_ - shift : first_ + shift;
  memset(end ? data_ - kAround : data_ + bytes_, kAroundByte, kAround);
  memset(end ? data_ + bytes_ : first_, kAroundByte, shift);
  if (bytes_ > 0) memcpy(data_, content.data(), bytes_);
  return data_;
}

bool Watched::surroundings_intact() const {
  const unsigned char* last = first_ + usable_;
  const size_t before = static_cast<size_t>(data_ - first_), after = static_cast<size_t>(last - data_) - bytes_;
  return all_are(data_ - (before < kAround ? before : kAround), before < kAround ? before : kAround, kAroundByte) &&
         all_are(data_ + bytes_, after < kAround ? after : kAround, kAroundByte);
}

bool Watched::content_is(const Bytes& content) const {
  return bytes_ == content.size() && (bytes_ == 0 || memcmp(data_, content.data(), bytes_) == 0);
}

namespace {

// The memory of one slot: usable bytes before a page that cannot be touched, larger whenever needed.
struct Region {
  unsigned char *map = nullptr, *data = nullptr;
  size_t usable = 0, bytes = 0, slack = 0;
};
bool watching = false, intact = true;
int denied_slot = -1;
Region regions[2];

void look_around(Region& r) {
  if (r.data == nullptr) return;
  intact = intact && all_are(r.data + r.bytes, r.slack, kAroundByte) && all_are(r.data - 64, 64, kAroundByte);
  r.data = nullptr;
}

float* watched_workspace(int slot, int64_t floats) {
  Region& r = regions[slot];
  look_around(r);
  r.bytes = static_cast<size_t>(floats) * sizeof(float);
  r.slack = (64 - r.bytes % 64) % 64;  // the promise is an address that is a multiple of 64
  const size_t needed = 64 + r.bytes + r.slack;
  if (needed > r.usable) {
    if (r.map != nullptr) munmap(r.map, r.usable + page());
    r.usable = (needed + needed / 2 + page() - 1) / page() * page();
    r.map = map_pages(r.usable + page());
    open_pages(r.map, r.usable);
  }
  unsigned char* end = r.map + r.usable;
  memset(end - needed, kAroundByte, needed);
  r.data = end - r.slack - r.bytes;
  return reinterpret_cast<float*>(r.data);
}

}  // namespace

NoWorkspace::NoWorkspace(int slot) { denied_slot = slot; }
NoWorkspace::~NoWorkspace() { denied_slot = -1; }

WatchedWorkspace::WatchedWorkspace() { watching = true; }
WatchedWorkspace::~WatchedWorkspace() { watching = false; }

bool workspace_intact() {
  for (Region& r : regions) look_around(r);
  const bool was = intact;
  intact = true;
  return was;
}

}  // namespace native_test

namespace w8a16 {

float* workspace(int slot, int64_t floats) {
  if (slot == native_test::denied_slot) return nullptr;
  return native_test::watching ? native_test::watched_workspace(slot, floats) : shipped::workspace(slot, floats);
}

}  // namespace w8a16
