// y = (x q^T) * scales + bias, by both algorithms, on every shape, layout and placement.

#include <stdio.h>

#include <deque>
#include <string>

#include "linear_case.h"
#include "tests.h"

namespace native_test {

namespace {

enum Algorithms { narrow = 1, wide = 2, both = 3 };

int64_t work(const Shape& s) { return s.m * s.k * s.n; }

// The placements for one case: all for small ones, and for the others in turn.
std::vector<Placement> placements(const Shape& shape, int64_t turn) {
  if (work(shape) <= 20000 && !options.quick)
    return {Placement::at_end, Placement::at_start, turn % 2 != 0 ? Placement::odd_end : Placement::odd_start};
  return {static_cast<Placement>(turn % 4)};
}

// Runs all variants on the same cases, one group for each variant and algorithm.
class Sweep {
 public:
  Sweep(const Variants& variants, Float dtype, const char* what, int algorithms)
      : variants_(variants), dtype_(dtype), algorithms_(algorithms) {
    for (const w8a16::Variant* v : variants)
      for (const char* name : {"narrow", "wide"})
        if (algorithms & (name[0] == 'n' ? narrow : wide))
          groups_.emplace_back(std::string(v->name) + " linear " + name + " " + name_of(dtype) + ", " + what);
  }
  void run(const std::vector<Shape>& shapes, bool integers) {
    for (const Shape& shape : shapes) {
      const Layout layout = layout_for(dtype_, turn_++);
      const LinearCase c = integers ? integer_case(shape, layout, random_) : random_case(shape, layout, random_);
      size_t group = 0;
      for (const w8a16::Variant* v : variants_)
        for (int algorithm : {narrow, wide}) {
          if ((algorithms_ & algorithm) == 0) continue;
          Group& g = groups_[group++];
          if (shape.k > 0 || layout.bias) check_reference(g, c.y, c.tolerance, "linear");
          for (Placement placement : placements(shape, turn_))
            run_linear(g, *v, c, algorithm == wide, placement, buffers_);
        }
    }
  }

 private:
  const Variants& variants_;
  Float dtype_;
  int algorithms_;
  std::deque<Group> groups_;
  LinearBuffers buffers_;
  WatchedWorkspace workspace_;
  Random random_{1};
  int64_t turn_ = 0;
};

// Aligned activations with gaps: what a float32 tensor cut out of a wider one looks like.
void wide_gaps(const Variants& variants) {
  Random random(7);
  LinearBuffers buffers;
  const WatchedWorkspace workspace;
  for (const w8a16::Variant* v : variants)
    for (Float dtype : kFloats) {
      Group group(std::string(v->name) + " linear " + name_of(dtype) + ", gaps between rows");
      for (int64_t m : {1, 2, 5, 9}) {
        Layout layout = layout_for(dtype, m);
        layout.x_extra = 16 * 5 + (16 - 40 % 16);  // a stride that keeps the rows aligned
        layout.q_extra = 1000;
        layout.y_extra = 64;
        const LinearCase c = random_case({m, 40, 70}, layout, random);
        for (bool wide : {false, true}) run_linear(group, *v, c, wide, Placement::at_start, buffers);
      }
    }
}

}  // namespace

void test_linear(const Variants& variants) {
  for (Float dtype : kFloats) Sweep(variants, dtype, "listed shapes", both).run(listed_shapes(), false);
  for (Float dtype : kFloats) {
    Sweep(variants, dtype, "block edges", narrow).run(narrow_edges(), false);
    Sweep(variants, dtype, "block edges", wide).run(wide_edges(), false);
    // With so many terms the bound for random data is loose; integers are exact.
    Sweep(variants, dtype, "many activations, to the bit", narrow).run(many_activations(), true);
    Sweep(variants, dtype, "integers, to the bit", both).run(listed_shapes(), true);
    Sweep(variants, dtype, "integers at block edges, to the bit", narrow).run(narrow_edges(), true);
    Sweep(variants, dtype, "integers at block edges, to the bit", wide).run(wide_edges(), true);
  }
  wide_gaps(variants);
}

}  // namespace native_test
