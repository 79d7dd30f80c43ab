#include "parallel_ops.h"

#include <atomic>

#include "huge_pages.h"
#include "threads.h"
#include "variants.h"

namespace w8a16 {

namespace {

constexpr int64_t kSmallWork = 1 << 16;  // multiply-adds worth waking another thread for

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

FloatVector from(FloatVector v, int64_t index) {
  if (v.data != nullptr) v.data = static_cast<const char*>(v.data) + index * bytes_of(v.dtype);
  return v;
}
const void* from(const void* p, int64_t elements, Float dtype) {
  return static_cast<const char*>(p) + elements * bytes_of(dtype);
}
void* from(void* p, int64_t elements, Float dtype) { return static_cast<char*>(p) + elements * bytes_of(dtype); }

// Packing the activations costs as much as computing about eight outputs, and whole panels are computed:
// a layer of few outputs is faster with the narrow algorithm, unless it is also so short that adding up
// the lanes takes long there. Measured on Zen 3 with 64 to 1024 rows.
bool pays_to_pack(int64_t n, int64_t k) { return n >= 192 || (n >= 48 && k < 256); }

// A grid of slices: `across` outputs by `down` rows.
struct Grid {
  int64_t down, across;
  int64_t rows, columns;  // of a slice
};

int64_t cut(int64_t total, int64_t parts, int64_t unit) {
  const int64_t size = (total + parts - 1) / parts;
  return larger(unit, (size + unit - 1) / unit * unit);
}

// Columns first: each thread then reads its own part of the weight. Rows where columns are too few, and
// first where there are more of them: what a thread prepares for itself is then the smaller side.
Grid grid(int64_t m, int64_t columns, int64_t work, int64_t column_unit, int64_t row_unit) {
  const int64_t threads = larger(1, smaller(thread_count(), work / kSmallWork));
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

void linear_slices(int64_t begin, int64_t end, void* context) {
  Job<Linear>& job = *static_cast<Job<Linear>*>(context);
  for (int64_t part = begin; part < end; ++part) {
    Linear p = job.problem;
    const int64_t i = part / job.grid.across * job.grid.rows, j = part % job.grid.across * job.grid.columns;
    p.x = from(p.x, i * p.x_stride, p.dtype);
    p.y = from(p.y, i * p.y_stride + j, p.dtype);
    p.q += j * p.q_stride;
    p.scales = from(p.scales, j);
    p.bias = from(p.bias, j);
    p.m = smaller(job.grid.rows, p.m - i);
    p.n = smaller(job.grid.columns, p.n - j);
    if (!chosen().linear(p)) job.done = false;
  }
}

void input_grad_slices(int64_t begin, int64_t end, void* context) {
  Job<LinearInputGrad>& job = *static_cast<Job<LinearInputGrad>*>(context);
  for (int64_t part = begin; part < end; ++part) {
    LinearInputGrad p = job.problem;
    const int64_t i = part / job.grid.across * job.grid.rows, j = part % job.grid.across * job.grid.columns;
    p.dy = from(p.dy, i * p.dy_stride, p.dtype);
    p.dx = from(p.dx, i * p.dx_stride + j, p.dtype);
    p.q += j;
    p.m = smaller(job.grid.rows, p.m - i);
    p.k = smaller(job.grid.columns, p.k - j);
    if (!chosen().linear_input_grad(p)) job.done = false;
  }
}

}  // namespace

bool linear(Linear p) {
  if (p.m == 0 || p.n == 0) return true;
  p.wide = p.m >= chosen().wide_from && pays_to_pack(p.n, p.k);
  Job<Linear> job = {p, grid(p.m, p.n, p.m * p.n * larger(p.k, 1), 24, p.wide ? 48 : 6), {true}};
  parallel(job.grid.down * job.grid.across, linear_slices, &job);
  return job.done;
}

bool linear_input_grad(LinearInputGrad p) {
  if (p.m == 0 || p.k == 0) return true;
  Job<LinearInputGrad> job = {p, grid(p.m, p.k, p.m * p.k * larger(p.n, 1), 64, 48), {true}};
  parallel(job.grid.down * job.grid.across, input_grad_slices, &job);
  return job.done;
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
    p.indices += i;
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
  const int64_t threads = smaller(kMostParts, larger(1, smaller(thread_count(), p.n * p.k / kSmallWork)));
  RowsJob job = {p, cut(p.n, threads, 1), results};
  const int64_t parts = (p.n + job.rows - 1) / job.rows;
  parallel(parts, quantize_rows, &job);
  QuantizeResult total = {0, 0};
  for (int64_t i = 0; i < parts; ++i) {
    total.nonfinite_rows += results[i].nonfinite_rows;
    total.underflow_rows += results[i].underflow_rows;
  }
  return total;
}

void gather(Gather p) {
  const int64_t threads = larger(1, smaller(thread_count(), p.m * p.k / kSmallWork));
  GatherJob job = {p, cut(p.m, threads, 1)};
  parallel((p.m + job.rows - 1) / job.rows, gather_rows, &job);
}

}  // namespace w8a16
