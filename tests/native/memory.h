// Memory whose ends are watched: by pages that must not be touched, and by bytes that must not change.

#pragma once

#include <stddef.h>
#include <stdint.h>

#include <string>
#include <vector>

namespace native_test {

using Bytes = std::vector<unsigned char>;

enum class Placement {
  at_end,    // the last byte is followed by a page that cannot be touched
  at_start,  // the first byte is preceded by one
  odd_end,   // like at_end, one byte earlier: no alignment at all
  odd_start  // like at_start, one byte later
};
const char* name_of(Placement placement);

// One buffer of a kernel. It is kept between uses, so that placing costs little more than a copy.
class Watched {
 public:
  Watched() = default;
  ~Watched();
  Watched(const Watched&) = delete;

  // Copies `content` in and surrounds it with bytes that read as NaN in every float type.
  void* place(const Bytes& content, Placement placement);
  void* place(const Bytes& content, bool odd_allowed, Placement placement);
  // The content as it is now.
  const unsigned char* data() const { return data_; }
  // Whether the bytes around the content are as they were laid.
  bool surroundings_intact() const;
  // Whether the content itself is what was placed.
  bool content_is(const Bytes& content) const;

 private:
  void reserve(size_t bytes);
  unsigned char *map_ = nullptr, *first_ = nullptr, *data_ = nullptr;
  size_t map_bytes_ = 0, usable_ = 0, bytes_ = 0;
};

// While one of these lives, the kernels' workspace is at each request exactly as large as asked for, filled
// with NaN, and followed by a page that cannot be touched. For one thread only.
class WatchedWorkspace {
 public:
  WatchedWorkspace();
  ~WatchedWorkspace();
};
// While one of these lives, no workspace can be had in one slot, as where memory is short.
class NoWorkspace {
 public:
  explicit NoWorkspace(int slot);
  ~NoWorkspace();
};
// Whether every such workspace was left without a write beyond its size; asked after a kernel has run.
bool workspace_intact();

}  // namespace native_test
