// Several weights, each for its own range of activation rows: a mixture of experts.
//
// All slices of all experts form one list, from which the threads take the next one: experts differ in
// their rows, and one parallel loop for each would cost more than a small expert's own time. A row gets
// the bits that the plain problem on its expert's rows gives.

#include <string.h>

#include <atomic>

#include "parallel_ops.h"
#include "slices.h"
#include "threads.h"

namespace w8a16 {

namespace {

constexpr int64_t kSharesOfThread = 4;  // slices a thread at least: the last one to finish is not waited for long

// The problem of one expert, over its rows.
Linear expert_of(const Grouped<Linear>& g, int64_t expert) {
  Linear p = g.all;
  const int64_t first = g.offsets[expert];
  p.x = from(p.x, first * p.x_stride, p.dtype);
  p.y = from(p.y, first * p.y_stride, p.dtype);
  p.q += expert * g.q_step;
  p.scales = from(p.scales, expert * p.n);
  p.bias = from(p.bias, expert * p.n);
  p.m = g.offsets[expert + 1] - first;
  choose_algorithm(p);
  return p;
}

LinearInputGrad expert_of(const Grouped<LinearInputGrad>& g, int64_t expert) {
  LinearInputGrad p = g.all;
  const int64_t first = g.offsets[expert];
  p.dy = from(p.dy, first * p.dy_stride, p.dtype);
  p.dx = from(p.dx, first * p.dx_stride, p.dtype);
  p.q += expert * g.q_step;
  p.scales = from(p.scales, expert * p.n);
  p.m = g.offsets[expert + 1] - first;
  return p;
}

template <class Problem>
struct Job {
  const Grouped<Problem>* group;
  int64_t work, threads;
  std::atomic<int64_t> next;
  std::atomic<bool> done;
};

// Of one expert: as many threads as its share of the work deserves.
template <class Problem>
Grid share_of(const Problem& p, const Job<Problem>& job) {
  const double share = static_cast<double>(work_of(p)) / static_cast<double>(larger(job.work, 1));
  const int64_t wanted = static_cast<int64_t>(share * static_cast<double>(job.threads * kSharesOfThread)) + 1;
  return grid_of(p, smaller(job.threads, wanted));
}

template <class Problem>
void take_slices(int64_t, int64_t, void* context) {
  Job<Problem>& job = *static_cast<Job<Problem>*>(context);
  const Grouped<Problem>& g = *job.group;
  int64_t part = job.next++, before = 0;  // slices of the experts before this one
  for (int64_t e = 0; e < g.experts; ++e) {
    if (g.offsets[e] == g.offsets[e + 1]) continue;
    const Problem p = expert_of(g, e);
    const Grid grid = share_of(p, job);
    for (; part < before + grid.parts(); part = job.next++)
      if (!compute_slice(p, grid, part - before)) job.done = false;
    before += grid.parts();
  }
}

void clear(void* y, int64_t stride, int64_t columns, Float dtype, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row)
    memset(from(y, row * stride, dtype), 0, static_cast<size_t>(columns * bytes_of(dtype)));
}

template <class Problem>
bool compute(const Grouped<Problem>& g) {
  Problem touched = g.all;
  touched.m = g.offsets[g.experts] - g.offsets[0];
  if (touched.m == 0) return true;
  const int64_t work = work_of(touched);
  Job<Problem> job = {&g, work, threads_for(work), {0}, {true}};
  parallel(job.threads, take_slices<Problem>, &job);
  return job.done;
}

}  // namespace

bool offsets_fit(const int64_t* offsets, int64_t experts, int64_t rows) {
  if (offsets[0] < 0 || offsets[experts] > rows) return false;
  for (int64_t e = 0; e < experts; ++e)
    if (offsets[e] > offsets[e + 1]) return false;
  return true;
}

bool grouped_linear(const Grouped<Linear>& g) {
  const Linear& p = g.all;
  if (p.n == 0) return true;
  clear(p.y, p.y_stride, p.n, p.dtype, 0, g.offsets[0]);
  clear(p.y, p.y_stride, p.n, p.dtype, g.offsets[g.experts], p.m);
  return compute(g);
}

bool grouped_linear_input_grad(const Grouped<LinearInputGrad>& g) {
  const LinearInputGrad& p = g.all;
  if (p.k == 0) return true;
  clear(p.dx, p.dx_stride, p.k, p.dtype, 0, g.offsets[0]);
  clear(p.dx, p.dx_stride, p.k, p.dtype, g.offsets[g.experts], p.m);
  return compute(g);
}

}  // namespace w8a16
