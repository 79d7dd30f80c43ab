// What every variant (one per instruction set) offers, and the problems it is given.
//
// Nothing in this folder includes torch or Python, and no variant the C++ library: it is plain
// arithmetic on pointers. Letters: M activation rows, K input features, N output channels.

#pragma once

#include <stdint.h>
#include <string.h>

namespace w8a16 {

// An element of an array that may lie at any address, as in a memory-mapped file.
template <class Element>
inline Element element(const Element* array, int64_t index) {
  Element value;
  memcpy(&value, reinterpret_cast<const char*>(array) + index * static_cast<int64_t>(sizeof value), sizeof value);
  return value;
}

enum class Float : int32_t { f32 = 0, bf16 = 1, f16 = 2 };

inline int64_t bytes_of(Float dtype) { return dtype == Float::f32 ? 4 : 2; }

// A vector of scales or biases; `data` may be null where the bias is absent.
struct FloatVector {
  const void* data;
  Float dtype;
};

// y = (x q^T) * scales + bias, rounded once to `dtype`. Strides are in elements; rows are unit-stride.
struct Linear {
  const void* x;  // [m, k]
  int64_t x_stride;
  const int8_t* q;  // [n, k]
  int64_t q_stride;
  FloatVector scales, bias;  // [n]
  void* y;                   // [m, n]
  int64_t y_stride;
  int64_t m, k, n;
  Float dtype;  // of x and y
  bool wide;    // which of the two algorithms; chosen for the whole problem, so slices agree bit for bit
};

// dx = (dy * scales) q, rounded once to `dtype`.
struct LinearInputGrad {
  const void* dy;  // [m, n]
  int64_t dy_stride;
  const int8_t* q;  // [n, k]
  int64_t q_stride;
  FloatVector scales;  // [n]
  void* dx;            // [m, k]
  int64_t dx_stride;
  int64_t m, k, n;
  Float dtype;  // of dy and dx
};

// Several weights over the rows of one matrix: rows offsets[e] to offsets[e + 1] belong to weight e.
template <class Problem>
struct Grouped {
  Problem all;             // m: all rows; q, scales and bias: those of the first weight
  const int64_t* offsets;  // [experts + 1], nondecreasing, within 0..m
  int64_t experts;
  int64_t q_step;  // codes from one weight to the next; vectors lie n apart
};

// What a weight has beyond codes with one scale a row: scales of groups of columns, weights kept as floats.
// `scales` of the problem are then float32 [n, groups].
struct Refinement {
  int64_t groups, group;   // groups of a row; columns of one: a multiple of kGroupUnit, or all there are
  const int32_t* columns;  // [n, outliers], within the weight
  const float* values;     // [n, outliers], added to the weights at those columns
  int64_t outliers;
  int64_t first_column;  // of a slice of an input gradient; 0 for the whole
};

constexpr int64_t kGroupUnit = 16;  // a vector of codes of any variant lies within a group
inline bool refinable(int64_t groups, int64_t group) {
  return groups == 1 || (groups > 1 && group > 0 && group % kGroupUnit == 0);
}

template <class Problem>
struct Refined {
  Problem all;
  Refinement refinement;
};

// Per row: scale = amax / 127, code = clamp(round_half_even(w / scale)).
struct Quantize {
  const void* w;  // [n, k]
  int64_t w_stride;
  Float dtype;
  int8_t* q;  // [n, k], contiguous
  float* scales;
  float* errors;  // null, or [n, 3]: sum of (w / s)^2, sum of ((w - q s) / s)^2, largest |w - q s| / (s / 2)
  int64_t k, n;
};

struct QuantizeResult {
  int64_t nonfinite_rows;  // rows with NaN or Inf; their codes and scales are not written
  int64_t underflow_rows;  // rows with values, yet too small for a scale: stored as zero rows
  int64_t zero_rows;       // rows without any value but zero
  // Where errors are asked for, those of all rows together, row by row: sums of w^2 and of (w - q s)^2, and
  // the largest |w - q s| in half-steps.
  double signal, noise;
  float largest;
};

// y[i] = q[indices[i]] * scales[indices[i]], rounded once; the indices are already checked.
struct Gather {
  const int64_t* indices;  // [m], or null for 0, 1, 2, ...: all rows, in their order
  const int8_t* q;         // [n, k]
  int64_t q_stride;
  FloatVector scales;
  void* y;  // [m, k], contiguous
  int64_t m, k;
  Float dtype;
};

// One instruction set. Every function runs on the calling thread and may be given a slice. Those that
// need working memory return false, with nothing written, where it cannot be had.
struct Variant {
  const char* name;
  bool (*linear)(const Linear&);
  bool (*linear_input_grad)(const LinearInputGrad&);
  bool (*refined_linear)(const Refined<Linear>&);
  bool (*refined_linear_input_grad)(const Refined<LinearInputGrad>&);
  QuantizeResult (*quantize)(const Quantize&);
  void (*gather)(const Gather&);
  // The CRC-32 of `bytes` bytes with `before` as that of what is before them (0: nothing is).
  uint32_t (*crc32)(uint32_t before, const void* data, int64_t bytes);
  // Sums a buffer and does nothing else: what a kernel bound by reading could reach.
  uint64_t (*read)(const void* data, int64_t bytes);
  // Runs `rounds` times a fixed number of independent multiply-adds from registers; returns the
  // floating-point operations done. `sink` keeps the compiler from dropping them.
  int64_t (*multiply_add)(int64_t rounds, float* sink);
  int64_t wide_from;  // the number of rows from which the wide algorithm is faster, as measured
};

// Memory of the calling thread, 64-byte aligned, kept between calls. Two slots, so that a caller can
// hold one while a callee uses the other. Null where memory is short.
float* workspace(int slot, int64_t floats);

}  // namespace w8a16
