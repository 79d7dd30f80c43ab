#include "shapes.h"

#include <set>
#include <utility>

#include "harness.h"

// The plain variant, for the constants of the algorithms. The order matters: primitives, then algorithms.
// clang-format off
#include "vector_portable.h"
#include "variant.h"
// clang-format on

namespace native_test {

extern const w8a16::Variant plain_again;
const w8a16::Variant plain_again = variant("plain again", 0);

const Blocks blocks = {kNarrowRows, kNarrowDepth, kNarrowMerge, kNarrowWiden,       kNarrowChannels,
                       kNarrowUnit, kWideRows,    kWideOutputs, kWideDepth * kPanel};

namespace {

const std::vector<int64_t> kRows = {0, 1, 2, 3, 7, 8, 16, 17, 31, 33, 64, 257};
const std::vector<int64_t> kIns = {0,  1,  2,  3,   7,   8,   9,   15,  16,  17,   31,   32,   33,
                                   63, 64, 65, 100, 127, 128, 129, 255, 257, 4096, 4097, 11008};
const std::vector<int64_t> kOuts = {0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 1000, 4099};

// The widths of a panel (kLanes * kVectorsWide) that variants have.
const std::vector<int64_t> kPanels = {8, 16, 32};

int64_t work(const Shape& s) { return (s.m > 1 ? s.m : 1) * (s.k > 1 ? s.k : 1) * (s.n > 1 ? s.n : 1); }

std::vector<int64_t> around(std::vector<int64_t> edges) {
  std::set<int64_t> values;
  for (int64_t b : edges)
    for (int64_t v : {b - 1, b, b + 1, 2 * b - 1}) values.insert(v);
  return std::vector<int64_t>(values.begin(), values.end());
}

void cross(std::vector<Shape>& to, const std::vector<int64_t>& m, const std::vector<int64_t>& k,
           const std::vector<int64_t>& n) {
  for (int64_t i : m)
    for (int64_t j : k)
      for (int64_t l : n) to.push_back({i, j, l});
}

}  // namespace

std::vector<Shape> listed_shapes() {
  const int64_t all_up_to = options.quick ? 4000 : 120000;
  const int64_t pairs_up_to = options.quick ? 100000 : int64_t{1} << 40;
  std::vector<Shape> shapes;
  std::set<std::pair<int64_t, int64_t>> met[3];
  const auto take = [&](const Shape& s) {
    shapes.push_back(s);
    met[0].insert({s.m, s.k});
    met[1].insert({s.k, s.n});
    met[2].insert({s.m, s.n});
  };
  for (int64_t m : kRows)
    for (int64_t k : kIns)
      for (int64_t n : kOuts)
        if (work({m, k, n}) <= all_up_to && !(options.quick && (m + k + n) % 3 != 0)) take({m, k, n});
  // The third value changes from pair to pair, among the small ones.
  int turn = 0;
  const int64_t thirds[] = {3, 2, 7, 1};
  const auto pairs = [&](int which, const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
    for (int64_t i : a)
      for (int64_t j : b) {
        if (met[which].count({i, j}) != 0) continue;
        const int64_t third = i * j > 10000000 ? 1 : thirds[turn++ % 4];
        const Shape s = which == 0 ? Shape{i, j, third} : which == 1 ? Shape{third, i, j} : Shape{i, third, j};
        if (work(s) <= pairs_up_to) take(s);
      }
  };
  pairs(0, kRows, kIns);
  pairs(1, kIns, kOuts);
  pairs(2, kRows, kOuts);
  return shapes;
}

std::vector<Shape> narrow_edges() {
  const std::vector<int64_t> depths = around({blocks.narrow_depth, blocks.narrow_depth + blocks.narrow_merge,
                                              2 * blocks.narrow_depth + blocks.narrow_merge});
  const std::vector<int64_t> channels = around({blocks.narrow_unit, blocks.narrow_channels});
  std::vector<Shape> shapes;
  if (options.quick) {
    cross(shapes, {1, 2, 6, 7}, depths, {1, 9});
    cross(shapes, {1, 3}, {5, 100}, channels);
    cross(shapes, around({blocks.narrow_rows}), {9}, {3});
    return shapes;
  }
  cross(shapes, {1, 2, 3, 4, 5, 6, 7, 11, 13}, depths, {1, 5, 9, 25});
  cross(shapes, {1, 2, 3, 4, 5, 6, 7, 11, 13}, {1, 9, 100, 511}, channels);
  cross(shapes, {1, 2, 6, 7}, {1025, 4097}, channels);
  cross(shapes, around({blocks.narrow_rows}), {1, 40, 300}, {1, 9, 25});
  return shapes;
}

std::vector<Shape> wide_edges() {
  std::vector<int64_t> depth_edges;
  for (int64_t panel : kPanels) depth_edges.push_back(blocks.panel_floats / panel);
  const std::vector<int64_t> depths = around(depth_edges), panels = around(kPanels);
  std::vector<Shape> shapes;
  if (options.quick) {
    cross(shapes, {3, 13}, depths, {5, 33});
    cross(shapes, {12}, {33}, panels);
    cross(shapes, around({blocks.wide_rows}), {9}, {3});
    cross(shapes, {3}, {5}, around({blocks.wide_outputs}));
    return shapes;
  }
  cross(shapes, {1, 5, 6, 11, 12, 13, 23}, depths, {1, 5, 33});
  cross(shapes, {1, 3, 4, 5, 7, 12, 13}, {1, 31, 32, 33, 100}, panels);
  cross(shapes, around({blocks.wide_rows}), {1, 9, 129, 257}, {3, 33});
  cross(shapes, {1, 3, 13}, {5, 130, 300}, around({blocks.wide_outputs}));
  return shapes;
}

std::vector<Shape> many_activations() {
  const int64_t limit = blocks.narrow_widen;
  if (options.quick) return {{2, limit / 2 + 1, 1}};
  // With more activations than that, the last block of K at its longest, one less, and one too long.
  const int64_t rows = blocks.narrow_rows;
  const int64_t longest =
      limit / 6 / blocks.narrow_depth * blocks.narrow_depth + blocks.narrow_depth + blocks.narrow_merge;
  return {{1, limit, 3},
          {1, limit + 1, 3},
          {2, limit / 2, 2},
          {2, limit / 2 + 1, 9},
          {rows, limit / rows, 5},
          {rows, limit / rows + 1, 5},
          {2 * rows + 1, limit / rows + 1, 3},
          {13, limit / 13 + 1, 3},
          {6, longest - 1, 2},
          {6, longest, 2},
          {6, longest + 1, 2}};
}

}  // namespace native_test
