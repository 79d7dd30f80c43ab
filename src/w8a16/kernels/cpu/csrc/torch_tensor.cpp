#include "torch_tensor.h"

namespace w8a16 {

Torch torch;

bool Argument::defined() const {
  bool out = false;
  return torch.call.is_defined(handle_, &out) == 0 && out;
}

bool Argument::read() {
  return torch.call.get_dtype(handle_, &dtype) == 0 && torch.call.get_dim(handle_, &dim) == 0 &&
         dim <= kMostDimensions && torch.call.get_sizes(handle_, &sizes) == 0 &&
         torch.call.get_strides(handle_, &strides) == 0 && torch.call.get_data_ptr(handle_, &data) == 0;
}

bool Argument::float_type(Float* out) const {
  if (dtype == torch.float32) *out = Float::f32;
  else if (dtype == torch.bfloat16) *out = Float::bf16;
  else if (dtype == torch.float16) *out = Float::f16;
  else return false;
  return true;
}

bool Argument::contiguous() const {
  if (product(sizes, dim) == 0) return true;
  int64_t step = 1;
  for (int64_t d = dim - 1; d >= 0; --d) {
    if (sizes[d] != 1 && strides[d] != step) return false;
    step *= sizes[d];
  }
  return true;
}

bool Argument::vector(int64_t length, FloatVector* out) const {
  out->data = data;
  return float_type(&out->dtype) && dim == 1 && sizes[0] == length && (strides[0] == 1 || length <= 1);
}

bool Argument::vectors(int64_t experts, int64_t length, FloatVector* out) const {
  out->data = data;
  return float_type(&out->dtype) && dim == 2 && sizes[0] == experts && sizes[1] == length && contiguous();
}

bool Argument::rows(int64_t* count, int64_t* stride) const {
  const int64_t last = dim - 1;
  if (strides[last] != 1 && sizes[last] > 1) return false;
  *count = product(sizes, last);
  *stride = sizes[last];
  if (*count == 0) return true;
  int64_t below = 1;
  bool found = false;
  for (int64_t d = last - 1; d >= 0; --d) {
    if (sizes[d] != 1) {
      if (!found) *stride = strides[d];
      else if (strides[d] != *stride * below) return false;
      found = true;
    }
    below *= sizes[d];
  }
  return true;
}

int64_t product(const int64_t* sizes, int64_t count) {
  int64_t total = 1;
  for (int64_t d = 0; d < count; ++d) total *= sizes[d];
  return total;
}

void* new_tensor(int64_t dim, const int64_t* sizes, int32_t dtype, void** data) {
  int64_t strides[kMostDimensions], step = 1;
  for (int64_t d = dim - 1; d >= 0; --d) {
    strides[d] = step;
    step *= sizes[d] > 1 ? sizes[d] : 1;
  }
  void* y = nullptr;
  if (torch.call.empty_strided(dim, sizes, strides, dtype, torch.cpu, 0, &y) != 0) return nullptr;
  if (torch.call.get_data_ptr(y, data) == 0) return y;
  torch.call.delete_tensor(y);
  return nullptr;
}

}  // namespace w8a16
