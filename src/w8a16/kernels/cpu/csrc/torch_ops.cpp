#include "torch_ops.h"

#include <stdlib.h>
#include <string.h>

#include "parallel_ops.h"

namespace w8a16 {

namespace {

TorchFunctions torch;
int32_t float32, bfloat16, float16, int8, cpu;

constexpr int64_t kMostDimensions = 16;

// A tensor argument, owned: an op that is called through the C interface deletes its arguments.
class Argument {
 public:
  explicit Argument(uint64_t value) : handle_(reinterpret_cast<void*>(static_cast<uintptr_t>(value))) {}
  Argument(const Argument&) = delete;
  ~Argument() { torch.delete_tensor(handle_); }

  bool defined() const {
    bool out = false;
    return torch.is_defined(handle_, &out) == 0 && out;
  }
  bool read() {
    return torch.get_dtype(handle_, &dtype) == 0 && torch.get_dim(handle_, &dim) == 0 &&
           torch.get_sizes(handle_, &sizes) == 0 && torch.get_strides(handle_, &strides) == 0 &&
           torch.get_data_ptr(handle_, &data) == 0;
  }
  bool float_type(Float* out) const {
    if (dtype == float32) *out = Float::f32;
    else if (dtype == bfloat16) *out = Float::bf16;
    else if (dtype == float16) *out = Float::f16;
    else return false;
    return true;
  }
  bool vector(int64_t length, FloatVector* out) const {
    out->data = data;
    return float_type(&out->dtype) && dim == 1 && sizes[0] == length && (strides[0] == 1 || length <= 1);
  }

  int32_t dtype = 0;
  int64_t dim = 0;
  int64_t *sizes = nullptr, *strides = nullptr;
  void* data = nullptr;

 private:
  void* handle_;
};

// The rows of x as one matrix with a constant distance between them; false where the layout has none.
bool rows_of(const Argument& x, int64_t* rows, int64_t* stride) {
  const int64_t last = x.dim - 1;
  if (x.strides[last] != 1 && x.sizes[last] > 1) return false;
  *rows = 1;
  *stride = x.sizes[last];
  for (int64_t d = 0; d < last; ++d)
    if (x.sizes[d] == 0) return *rows = 0, true;
  bool found = false;
  for (int64_t d = last - 1; d >= 0; --d) {
    if (x.sizes[d] != 1) {
      if (!found) *stride = x.strides[d];
      else if (x.strides[d] != *stride * *rows) return false;
      found = true;
    }
    *rows *= x.sizes[d];
  }
  return true;
}

bool forced_elsewhere() {
  const char* name = getenv("W8A16_BACKEND");
  return name != nullptr && *name != '\0' && strcmp(name, "cpu-native") != 0;
}

// The result, or null where this kernel does not apply: the complete op then computes it, or says what
// is wrong with the arguments.
void* linear_of(Argument& x, Argument& q, Argument& scales, Argument& bias) {
  Linear p = {};
  if (forced_elsewhere() || !x.read() || !q.read() || !scales.read()) return nullptr;
  if (!x.float_type(&p.dtype) || x.dim < 1 || x.dim > kMostDimensions || q.dtype != int8 || q.dim != 2) return nullptr;
  p.n = q.sizes[0];
  p.k = q.sizes[1];
  if (x.sizes[x.dim - 1] != p.k || (q.strides[1] != 1 && p.k > 1)) return nullptr;
  if (!scales.vector(p.n, &p.scales)) return nullptr;
  if (bias.defined() && !(bias.read() && bias.vector(p.n, &p.bias))) return nullptr;
  if (!rows_of(x, &p.m, &p.x_stride)) return nullptr;

  int64_t sizes[kMostDimensions], strides[kMostDimensions], step = 1;
  for (int64_t d = x.dim - 1; d >= 0; --d) {
    sizes[d] = d == x.dim - 1 ? p.n : x.sizes[d];
    strides[d] = step;
    step *= sizes[d] > 1 ? sizes[d] : 1;
  }
  void* y = nullptr;
  if (torch.empty_strided(x.dim, sizes, strides, x.dtype, cpu, 0, &y) != 0) return nullptr;
  if (torch.get_data_ptr(y, &p.y) != 0) {
    torch.delete_tensor(y);
    return nullptr;
  }
  p.x = x.data;
  p.q = static_cast<const int8_t*>(q.data);
  p.q_stride = q.strides[0];
  p.y_stride = p.n;
  if (linear(p)) return y;
  torch.delete_tensor(y);
  return nullptr;
}

void answer(uint64_t* stack, void* result) {
  if (result == nullptr) torch.new_undefined(&result);
  stack[0] = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(result));
}

void linear_kernel(uint64_t* stack, uint64_t, uint64_t) {
  Argument x(stack[0]), q(stack[1]), scales(stack[2]), bias(stack[3]);
  answer(stack, linear_of(x, q, scales, bias));
}

// Where torch does more than compute (autocast, tracing, transforms, dispatch modes), the complete op
// must be the one that is seen.
void decline(uint64_t* stack, uint64_t inputs, uint64_t) {
  for (uint64_t i = 0; i < inputs; ++i) Argument dropped(stack[i]);
  answer(stack, nullptr);
}

bool add(const char* key, void (*kernel)(uint64_t*, uint64_t, uint64_t)) {
  void* library = nullptr;  // never deleted: that would unregister the kernel
  return torch.library_init_impl("w8a16", key, __FILE__, __LINE__, &library) == 0 &&
         torch.library_impl(library, "linear_native", kernel) == 0;
}

}  // namespace

bool register_ops(const TorchFunctions& functions) {
  torch = functions;
  float32 = torch.dtype_float32();
  bfloat16 = torch.dtype_bfloat16();
  float16 = torch.dtype_float16();
  int8 = torch.dtype_int8();
  cpu = torch.device_type_cpu();
  constexpr const char* kDeclining[] = {"CompositeExplicitAutograd", "Meta", "AutocastCPU", "Tracer",
                                        "FuncTorchDynamicLayerFrontMode", "Python"};
  for (const char* key : kDeclining)
    if (!add(key, decline)) return false;
  return add("CPU", linear_kernel);
}

}  // namespace w8a16
