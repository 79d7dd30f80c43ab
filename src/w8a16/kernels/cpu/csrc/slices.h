// How a whole problem is cut into slices, and where a slice begins.

#pragma once

#include "kernels.h"

namespace w8a16 {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

inline FloatVector from(FloatVector v, int64_t index) {
  if (v.data != nullptr) v.data = static_cast<const char*>(v.data) + index * bytes_of(v.dtype);
  return v;
}
inline const void* from(const void* p, int64_t elements, Float dtype) {
  return static_cast<const char*>(p) + elements * bytes_of(dtype);
}
inline void* from(void* p, int64_t elements, Float dtype) { return static_cast<char*>(p) + elements * bytes_of(dtype); }

inline int64_t cut(int64_t total, int64_t parts, int64_t unit) {
  const int64_t size = (total + parts - 1) / parts;
  return larger(unit, (size + unit - 1) / unit * unit);
}

// How many threads are worth waking for so many multiply-adds.
int64_t threads_for(int64_t work);

// A grid of slices: `across` outputs by `down` rows.
struct Grid {
  int64_t down, across;
  int64_t rows, columns;  // of a slice
  int64_t parts() const { return down * across; }
};

// For each problem: its algorithm where there are two, its multiply-adds, its grid for a number of threads,
// and the computing of one slice, which is false where memory is short.
void choose_algorithm(Linear& p);
inline void choose_algorithm(LinearInputGrad&) {}
inline int64_t work_of(const Linear& p) { return p.m * p.n * larger(p.k, 1); }
inline int64_t work_of(const LinearInputGrad& p) { return p.m * p.k * larger(p.n, 1); }
Grid grid_of(const Linear& p, int64_t threads);
Grid grid_of(const LinearInputGrad& p, int64_t threads);
bool compute_slice(Linear p, const Grid& grid, int64_t part);
bool compute_slice(LinearInputGrad p, const Grid& grid, int64_t part);

template <class Problem>
int64_t work_of(const Refined<Problem>& p) {
  return work_of(p.all);
}
template <class Problem>
Grid grid_of(const Refined<Problem>& p, int64_t threads) {
  return grid_of(p.all, threads);
}
bool compute_slice(Refined<Linear> p, const Grid& grid, int64_t part);
bool compute_slice(Refined<LinearInputGrad> p, const Grid& grid, int64_t part);

}  // namespace w8a16
