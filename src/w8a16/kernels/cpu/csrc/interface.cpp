// The C interface: what Python reaches with ctypes. Everything else of this library is hidden.

#include <atomic>

#include "compiler.h"
#include "parallel_ops.h"
#include "threads.h"
#include "torch_ops.h"
#include "variants.h"

using namespace w8a16;

W8A16_EXPORT int32_t w8a16_interface_version() { return 7; }

W8A16_EXPORT void w8a16_use_torch_threads(const TorchThreads* functions) { use_torch_threads(*functions); }
W8A16_EXPORT void w8a16_use_openmp(const OpenMp* functions) { use_openmp(*functions); }

W8A16_EXPORT int32_t w8a16_register_ops(const TorchFunctions* functions) { return register_ops(*functions) ? 1 : 0; }

W8A16_EXPORT int32_t w8a16_variant_count() { return variant_count(); }
W8A16_EXPORT const char* w8a16_variant_name(int32_t index) { return variant_at(index).name; }
W8A16_EXPORT const char* w8a16_variant_why_not(int32_t index) { return why_not(index); }
W8A16_EXPORT int32_t w8a16_variant_chosen() { return chosen_index(); }
W8A16_EXPORT int32_t w8a16_variant_choose(int32_t index) { return choose(index) ? 1 : 0; }
W8A16_EXPORT int64_t w8a16_wide_from() { return chosen().wide_from; }

W8A16_EXPORT int32_t w8a16_linear(const Linear* problem) { return linear(*problem) ? 1 : 0; }
W8A16_EXPORT void w8a16_linear_slice(const Linear* problem) { chosen().linear(*problem); }
W8A16_EXPORT int32_t w8a16_linear_input_grad(const LinearInputGrad* problem) {
  return linear_input_grad(*problem) ? 1 : 0;
}
W8A16_EXPORT int32_t w8a16_refined_linear(const Refined<Linear>* problem) { return refined_linear(*problem) ? 1 : 0; }
W8A16_EXPORT int32_t w8a16_refined_linear_input_grad(const Refined<LinearInputGrad>* problem) {
  return refined_linear_input_grad(*problem) ? 1 : 0;
}
W8A16_EXPORT void w8a16_quantize(const Quantize* problem, QuantizeResult* result) { *result = quantize(*problem); }
// On the calling thread alone: for callers with threads of their own.
W8A16_EXPORT void w8a16_quantize_slice(const Quantize* problem, QuantizeResult* result) {
  *result = chosen().quantize(*problem);
}
W8A16_EXPORT int32_t w8a16_grouped_linear(const Grouped<Linear>* problem) { return grouped_linear(*problem) ? 1 : 0; }
W8A16_EXPORT int32_t w8a16_grouped_linear_input_grad(const Grouped<LinearInputGrad>* problem) {
  return grouped_linear_input_grad(*problem) ? 1 : 0;
}
W8A16_EXPORT uint32_t w8a16_crc32(uint32_t before, const void* data, int64_t bytes) {
  return chosen().crc32(before, data, bytes);
}
W8A16_EXPORT void w8a16_gather(const Gather* problem) { gather(*problem); }

namespace {

struct Reading {
  const char* data;
  int64_t bytes, part;
  std::atomic<uint64_t> sum;
};

void read_parts(int64_t begin, int64_t end, void* context) {
  Reading& job = *static_cast<Reading*>(context);
  uint64_t sum = 0;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t start = i * job.part;
    const int64_t left = job.bytes - start;
    sum += chosen().read(job.data + start, left < job.part ? left : job.part);
  }
  job.sum.fetch_add(sum, std::memory_order_relaxed);
}

struct Counting {
  int64_t rounds;
  std::atomic<int64_t> operations;
};

void multiply_add_parts(int64_t begin, int64_t end, void* context) {
  Counting& job = *static_cast<Counting*>(context);
  float sink;
  int64_t done = 0;
  for (int64_t i = begin; i < end; ++i) done += chosen().multiply_add(job.rounds, &sink);
  job.operations.fetch_add(done, std::memory_order_relaxed);
}

}  // namespace

// Reads a buffer with all threads; the sum keeps the reading from being dropped.
W8A16_EXPORT uint64_t w8a16_read(const void* data, int64_t bytes) {
  const int64_t threads = thread_count();
  Reading job = {static_cast<const char*>(data), bytes, (bytes / threads + 127) / 128 * 128, 0};
  parallel(threads, read_parts, &job);
  return job.sum;
}

// Multiply-adds from registers on all threads; returns the floating-point operations done.
W8A16_EXPORT int64_t w8a16_multiply_add(int64_t rounds) {
  Counting job = {rounds, 0};
  parallel(thread_count(), multiply_add_parts, &job);
  return job.operations;
}
