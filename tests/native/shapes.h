// The shapes that every kernel must pass: the list of the project, and the edges of the kernels' blocks.

#pragma once

#include <stdint.h>

#include <vector>

namespace native_test {

struct Shape {
  int64_t m, k, n;
};

// Block sizes as the kernels have them: read from their headers in shapes.cpp.
struct Blocks {
  int64_t narrow_rows, narrow_depth, narrow_merge, narrow_widen, narrow_channels, narrow_unit;
  int64_t wide_rows, wide_outputs, panel_floats;
};
extern const Blocks blocks;

// From M x K x N of the list: all shapes up to a number of multiply-adds, and of the larger ones so many
// that every pair of values meets.
std::vector<Shape> listed_shapes();
// For each block edge B: B - 1, B, B + 1, 2 B - 1.
std::vector<Shape> narrow_edges();
std::vector<Shape> wide_edges();
// Around the number of activations from which they are widened block by block.
std::vector<Shape> many_activations();

}  // namespace native_test
