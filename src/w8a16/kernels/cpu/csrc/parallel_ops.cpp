#include "parallel_ops.h"

#include <atomic>

#include "huge_pages.h"
#include "slices.h"
#include "threads.h"
#include "variants.h"

namespace w8a16 {

namespace {

constexpr int64_t kSmallWork = 1 << 16;  // multiply-adds worth waking another thread for

// Packing the activations costs as much as computing about eight outputs, and whole panels are computed:
// a layer of few outputs is faster with the narrow algorithm, unless it is also so short that adding up
// the lanes takes long there. Measured on Zen 3 with 64 to 1024 rows.
bool pays_to_pack(int64_t n, int64_t k) { return n >= 192 || (n >= 48 && k < 256); }

// Columns first: each thread then reads its own part of the weight. Rows where columns are too few, and
// first where there are more of them: what a thread prepares for itself is then the smaller side.
Grid grid(int64_t m, int64_t columns, int64_t threads, int64_t column_unit, int64_t row_unit) {
  Grid g;
  if (m > columns && m >= threads * row_unit) {
    g.rows = cut(m, threads, row_unit);
    return {(m + g.rows - 1) / g.rows, 1, g.rows, larger(1, columns)};
  }
  g.columns = cut(columns, threads, column_unit);
  g.across = larger(1, (columns + g.columns - 1) / g.columns);
  const int64_t spare = threads / g.across;
  g.rows = spare > 1 ? cut(m, spare, row_unit) : larger(1, m);
  g.down = larger(1, (m + g.rows - 1) / g.rows);
  return g;
}

template <class Problem>
struct Job {
  Problem problem;
  Grid grid;
  std::atomic<bool> done;  // false as soon as one slice could not be computed
};

template <class Problem>
void compute_slices(int64_t begin, int64_t end, void* context) {
  Job<Problem>& job = *static_cast<Job<Problem>*>(context);
  for (int64_t part = begin; part < end; ++part)
    if (!compute_slice(job.problem, job.grid, part)) job.done = false;
}

template <class Problem>
bool compute(const Problem& p) {
  Job<Problem> job = {p, grid_of(p, threads_for(work_of(p))), {true}};
  parallel(job.grid.parts(), compute_slices<Problem>, &job);
  return job.done;
}

}  // namespace

int64_t threads_for(int64_t work) { return larger(1, smaller(thread_count(), work / kSmallWork)); }

void choose_algorithm(Linear& p) { p.wide = p.m >= chosen().wide_from && pays_to_pack(p.n, p.k); }

Grid grid_of(const Linear& p, int64_t threads) { return grid(p.m, p.n, threads, 24, p.wide ? 48 : 6); }
Grid grid_of(const LinearInputGrad& p, int64_t threads) { return grid(p.m, p.k, threads, 64, 48); }

namespace {

// The slice of rows from `i` and outputs from `j` on.
Linear slice_of(Linear p, const Grid& grid, int64_t i, int64_t j) {
  p.x = from(p.x, i * p.x_stride, p.dtype);
  p.y = from(p.y, i * p.y_stride + j, p.dtype);
  p.q += j * p.q_stride;
  p.scales = from(p.scales, j);
  p.bias = from(p.bias, j);
  p.m = smaller(grid.rows, p.m - i);
  p.n = smaller(grid.columns, p.n - j);
  return p;
}

LinearInputGrad slice_of(LinearInputGrad p, const Grid& grid, int64_t i, int64_t j) {
  p.dy = from(p.dy, i * p.dy_stride, p.dtype);
  p.dx = from(p.dx, i * p.dx_stride + j, p.dtype);
  p.q += j;
  p.m = smaller(grid.rows, p.m - i);
  p.k = smaller(grid.columns, p.k - j);
  return p;
}

Refined<Linear> slice_of(Refined<Linear> p, const Grid& grid, int64_t i, int64_t j) {
  const FloatVector scales = from(p.all.scales, j * p.refinement.groups);
  p.all = slice_of(p.all, grid, i, j);
  p.all.scales = scales;
  p.refinement.columns += j * p.refinement.outliers;
  p.refinement.values += j * p.refinement.outliers;
  return p;
}

Refined<LinearInputGrad> slice_of(Refined<LinearInputGrad> p, const Grid& grid, int64_t i, int64_t j) {
  p.all = slice_of(p.all, grid, i, j);
  p.refinement.first_column += j;
  return p;
}

template <class Problem>
Problem slice(const Problem& p, const Grid& grid, int64_t part) {
  return slice_of(p, grid, part / grid.across * grid.rows, part % grid.across * grid.columns);
}

}  // namespace

bool compute_slice(Linear p, const Grid& grid, int64_t part) { return chosen().linear(slice(p, grid, part)); }
bool compute_slice(LinearInputGrad p, const Grid& grid, int64_t part) {
  return chosen().linear_input_grad(slice(p, grid, part));
}
bool compute_slice(Refined<Linear> p, const Grid& grid, int64_t part) {
  return chosen().refined_linear(slice(p, grid, part));
}
bool compute_slice(Refined<LinearInputGrad> p, const Grid& grid, int64_t part) {
  return chosen().refined_linear_input_grad(slice(p, grid, part));
}

bool linear(Linear p) {
  if (p.m == 0 || p.n == 0) return true;
  choose_algorithm(p);
  return compute(p);
}

bool linear_input_grad(LinearInputGrad p) { return p.m == 0 || p.k == 0 || compute(p); }

bool refined_linear(Refined<Linear> p) {
  if (p.all.m == 0 || p.all.n == 0) return true;
  choose_algorithm(p.all);
  return compute(p);
}

bool refined_linear_input_grad(const Refined<LinearInputGrad>& p) {
  return p.all.m == 0 || p.all.k == 0 || compute(p);
}

bool columns_fit(const int32_t* columns, int64_t count, int64_t features) {
  bool fit = true;
  for (int64_t i = 0; i < count; ++i) fit &= element(columns, i) >= 0 && element(columns, i) < features;
  return fit;
}

namespace {

struct RowsJob {
  Quantize problem;
  int64_t rows;
  QuantizeResult* results;
};

void quantize_rows(int64_t begin, int64_t end, void* context) {
  RowsJob& job = *static_cast<RowsJob*>(context);
  for (int64_t part = begin; part < end; ++part) {
    Quantize p = job.problem;
    const int64_t n = part * job.rows;
    p.w = from(p.w, n * p.w_stride, p.dtype);
    p.q += n * p.k;
    p.scales += n;
    if (p.errors != nullptr) p.errors += 3 * n;
    p.n = smaller(job.rows, p.n - n);
    job.results[part] = chosen().quantize(p);
  }
}

struct GatherJob {
  Gather problem;
  int64_t rows;
};

void gather_rows(int64_t begin, int64_t end, void* context) {
  const GatherJob& job = *static_cast<const GatherJob*>(context);
  for (int64_t part = begin; part < end; ++part) {
    Gather p = job.problem;
    const int64_t i = part * job.rows;
    if (p.indices != nullptr) {
      p.indices += i;
    } else {
      p.q += i * p.q_stride;
      p.scales = from(p.scales, i);
    }
    p.y = from(p.y, i * p.k, p.dtype);
    p.m = smaller(job.rows, p.m - i);
    chosen().gather(p);
  }
}

}  // namespace

QuantizeResult quantize(Quantize p) {
  prefer_huge_pages(p.q, p.n * p.k);
  constexpr int64_t kMostParts = 256;
  QuantizeResult results[kMostParts] = {};
  const int64_t threads = smaller(kMostParts, threads_for(p.n * p.k));
  RowsJob job = {p, cut(p.n, threads, 1), results};
  const int64_t parts = (p.n + job.rows - 1) / job.rows;
  parallel(parts, quantize_rows, &job);
  QuantizeResult total = {};
  for (int64_t i = 0; i < parts; ++i) {
    total.nonfinite_rows += results[i].nonfinite_rows;
    total.underflow_rows += results[i].underflow_rows;
    total.zero_rows += results[i].zero_rows;
    total.signal += results[i].signal;
    total.noise += results[i].noise;
    if (results[i].largest > total.largest) total.largest = results[i].largest;
  }
  return total;
}

void gather(Gather p) {
  prefer_huge_pages(p.y, p.m * p.k * bytes_of(p.dtype));
  GatherJob job = {p, cut(p.m, threads_for(p.m * p.k), 1)};
  parallel((p.m + job.rows - 1) / job.rows, gather_rows, &job);
}

}  // namespace w8a16
