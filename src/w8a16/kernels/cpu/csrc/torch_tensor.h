// Tensor arguments and results of the ops in torch_ops.cpp, through torch's stable C interface.

#pragma once

#include "kernels.h"
#include "torch_ops.h"

namespace w8a16 {

constexpr int64_t kMostDimensions = 16;

// The loaded torch: its functions, and its numbers for dtypes and devices. Set once, by register_ops.
struct Torch {
  TorchFunctions call;
  int32_t float32, bfloat16, float16, int8, int32, int64, cpu;
};
extern Torch torch;

// A tensor argument, owned: an op that is called through the C interface deletes its arguments.
class Argument {
 public:
  explicit Argument(uint64_t value) : handle_(reinterpret_cast<void*>(static_cast<uintptr_t>(value))) {}
  Argument(const Argument&) = delete;
  ~Argument() { torch.call.delete_tensor(handle_); }

  bool defined() const;
  // Fills the fields below; false where torch cannot say, or for more than kMostDimensions.
  bool read();
  bool float_type(Float* out) const;
  bool contiguous() const;
  bool vector(int64_t length, FloatVector* out) const;
  // The same for each of `experts`: a contiguous matrix.
  bool vectors(int64_t experts, int64_t length, FloatVector* out) const;
  // The rows as one matrix with a constant distance between them; false where the layout has none.
  bool rows(int64_t* count, int64_t* stride) const;

  int32_t dtype = 0;
  int64_t dim = 0;
  int64_t *sizes = nullptr, *strides = nullptr;
  void* data = nullptr;

 private:
  void* handle_;
};

int64_t product(const int64_t* sizes, int64_t count);

// A new contiguous tensor on the CPU, and its data; null where torch has none.
void* new_tensor(int64_t dim, const int64_t* sizes, int32_t dtype, void** data);

}  // namespace w8a16
