#include "torch_ops.h"

#include <stdlib.h>
#include <string.h>

#include "parallel_ops.h"
#include "torch_tensor.h"

namespace w8a16 {

namespace {

bool forced_elsewhere() {
  const char* name = getenv("W8A16_BACKEND");
  return name != nullptr && *name != '\0' && strcmp(name, "cpu-native") != 0;
}

// A tensor for the outputs of a linear map of x, filled by `run`, or null where it cannot be made or filled.
template <typename Run>
void* outputs_of(const Argument& x, const Argument& q, Linear& p, Run run) {
  int64_t sizes[kMostDimensions];
  for (int64_t d = 0; d < x.dim; ++d) sizes[d] = d == x.dim - 1 ? p.n : x.sizes[d];
  void* y = new_tensor(x.dim, sizes, x.dtype, &p.y);
  if (y == nullptr) return nullptr;
  p.x = x.data;
  p.q = static_cast<const int8_t*>(q.data);
  p.q_stride = q.strides[0];
  p.y_stride = p.n;
  if (run()) return y;
  torch.call.delete_tensor(y);
  return nullptr;
}

// Each of the functions below returns the result, or null where its kernel does not apply: the complete
// op then computes it, or says what is wrong with the arguments.

void* linear_of(Argument& x, Argument& q, Argument& scales, Argument& bias) {
  Linear p = {};
  if (forced_elsewhere() || !x.read() || !q.read() || !scales.read()) return nullptr;
  if (!x.float_type(&p.dtype) || x.dim < 1 || q.dtype != torch.int8 || q.dim != 2) return nullptr;
  p.n = q.sizes[0];
  p.k = q.sizes[1];
  if (x.sizes[x.dim - 1] != p.k || (q.strides[1] != 1 && p.k > 1)) return nullptr;
  if (!scales.vector(p.n, &p.scales)) return nullptr;
  if (bias.defined() && !(bias.read() && bias.vector(p.n, &p.bias))) return nullptr;
  if (!x.rows(&p.m, &p.x_stride)) return nullptr;
  return outputs_of(x, q, p, [&] { return linear(p); });
}

void* refined_linear_of(Argument& x, Argument& q, Argument& scales, Argument& bias, Argument& columns,
                        Argument& values) {
  Refined<Linear> refined = {};
  Linear& p = refined.all;
  Refinement& r = refined.refinement;
  if (forced_elsewhere() || !x.read() || !q.read() || !scales.read()) return nullptr;
  if (!x.float_type(&p.dtype) || x.dim < 1 || q.dtype != torch.int8 || q.dim < 2 || q.dim > 3) return nullptr;
  const bool grouped = q.dim == 3;
  p.n = q.sizes[0];
  r.groups = grouped ? q.sizes[1] : 1;
  r.group = q.sizes[q.dim - 1];
  p.k = r.groups * r.group;
  if (x.sizes[x.dim - 1] != p.k || (q.strides[q.dim - 1] != 1 && r.group > 1)) return nullptr;
  if (grouped && (!refinable(r.groups, r.group) || (q.strides[1] != r.group && r.groups > 1))) return nullptr;
  if (grouped ? !scales.vectors(p.n, r.groups, &p.scales) : !scales.vector(p.n, &p.scales)) return nullptr;
  if (p.scales.dtype != Float::f32 || (bias.defined() && !(bias.read() && bias.vector(p.n, &p.bias)))) return nullptr;
  if (columns.defined() != values.defined()) return nullptr;
  if (columns.defined()) {
    FloatVector kept;
    if (!columns.read() || !values.read() || columns.dtype != torch.int32 || columns.dim != 2) return nullptr;
    r.outliers = columns.sizes[1];
    if (columns.sizes[0] != p.n || !columns.contiguous() || !values.vectors(p.n, r.outliers, &kept)) return nullptr;
    r.columns = static_cast<const int32_t*>(columns.data);
    r.values = static_cast<const float*>(values.data);
    if (kept.dtype != Float::f32 || !columns_fit(r.columns, p.n * r.outliers, p.k)) return nullptr;
  }
  if (r.group == 0) r.group = 1;
  if (!x.rows(&p.m, &p.x_stride)) return nullptr;
  return outputs_of(x, q, p, [&] { return refined_linear(refined); });
}

// The number that Python gives for a dtype is the one of `Float`; torch's own differ between versions.
int32_t torch_type(Float dtype) {
  return dtype == Float::f32 ? torch.float32 : dtype == Float::bf16 ? torch.bfloat16 : torch.float16;
}

void* dequantize_of(Argument& q, Argument& scales, Float dtype) {
  Gather p = {};
  if (forced_elsewhere() || !q.read() || !scales.read()) return nullptr;
  if (q.dtype != torch.int8 || !scales.float_type(&p.scales.dtype) || scales.dim > q.dim) return nullptr;
  for (int64_t d = 0; d < scales.dim; ++d)
    if (q.sizes[d] != scales.sizes[d]) return nullptr;
  if (!q.contiguous() || !scales.contiguous()) return nullptr;
  p.m = product(q.sizes, scales.dim);
  p.k = product(q.sizes + scales.dim, q.dim - scales.dim);
  p.q = static_cast<const int8_t*>(q.data);
  p.q_stride = p.k;
  p.scales.data = scales.data;
  p.dtype = dtype;
  void* y = new_tensor(q.dim, q.sizes, torch_type(dtype), &p.y);
  if (y != nullptr) gather(p);
  return y;
}

void* grouped_linear_of(Argument& x, Argument& q, Argument& scales, Argument& bias, Argument& offsets) {
  Grouped<Linear> g = {};
  Linear& p = g.all;
  if (forced_elsewhere() || !x.read() || !q.read() || !scales.read() || !offsets.read()) return nullptr;
  if (!x.float_type(&p.dtype) || x.dim != 2 || q.dtype != torch.int8 || q.dim != 3) return nullptr;
  g.experts = q.sizes[0];
  p.n = q.sizes[1];
  p.k = q.sizes[2];
  if (x.sizes[1] != p.k || (q.strides[2] != 1 && p.k > 1)) return nullptr;
  if (!scales.vectors(g.experts, p.n, &p.scales)) return nullptr;
  if (bias.defined() && !(bias.read() && bias.vectors(g.experts, p.n, &p.bias))) return nullptr;
  if (offsets.dtype != torch.int64 || offsets.dim != 1 || offsets.sizes[0] != g.experts + 1 ||
      !offsets.contiguous() || !x.rows(&p.m, &p.x_stride))
    return nullptr;
  g.offsets = static_cast<const int64_t*>(offsets.data);
  if (!offsets_fit(g.offsets, g.experts, p.m)) return nullptr;

  const int64_t sizes[] = {p.m, p.n};
  void* y = new_tensor(2, sizes, x.dtype, &p.y);
  if (y == nullptr) return nullptr;
  p.x = x.data;
  p.q = static_cast<const int8_t*>(q.data);
  p.q_stride = q.strides[1];
  p.y_stride = p.n;
  g.q_step = q.strides[0];
  if (grouped_linear(g)) return y;
  torch.call.delete_tensor(y);
  return nullptr;
}

// The indices, widened to int64 where they are not: `widened` then owns them. False where one names no row.
template <class Index>
bool rows_named(const Argument& indices, int64_t count, int64_t rows, int64_t* widened) {
  const Index* index = static_cast<const Index*>(indices.data);
  bool named = true;
  for (int64_t i = 0; i < count; ++i) {
    named &= index[i] >= 0 && index[i] < rows;
    if (widened != nullptr) widened[i] = index[i];
  }
  return named;
}

void* embedding_of(Argument& indices, Argument& q, Argument& scales, Float dtype) {
  Gather p = {};
  if (forced_elsewhere() || !indices.read() || !q.read() || !scales.read()) return nullptr;
  if (q.dtype != torch.int8 || q.dim != 2 || indices.dim >= kMostDimensions || !indices.contiguous()) return nullptr;
  if ((q.strides[1] != 1 && q.sizes[1] > 1) || !scales.vector(q.sizes[0], &p.scales)) return nullptr;
  p.m = product(indices.sizes, indices.dim);
  p.k = q.sizes[1];
  p.q = static_cast<const int8_t*>(q.data);
  p.q_stride = q.strides[0];
  p.dtype = dtype;
  void *owned = nullptr, *y = nullptr, *wide = nullptr;
  bool ready = false;
  if (indices.dtype == torch.int64) {
    ready = rows_named<int64_t>(indices, p.m, q.sizes[0], nullptr);
    wide = indices.data;
  } else if (indices.dtype == torch.int32) {
    owned = new_tensor(1, &p.m, torch.int64, &wide);
    ready = owned != nullptr && rows_named<int32_t>(indices, p.m, q.sizes[0], static_cast<int64_t*>(wide));
  }
  if (ready) {
    int64_t sizes[kMostDimensions];
    for (int64_t d = 0; d < indices.dim; ++d) sizes[d] = indices.sizes[d];
    sizes[indices.dim] = p.k;
    p.indices = static_cast<const int64_t*>(wide);
    y = new_tensor(indices.dim + 1, sizes, torch_type(dtype), &p.y);
    if (y != nullptr) gather(p);
  }
  if (owned != nullptr) torch.call.delete_tensor(owned);
  return y;
}

void answer(uint64_t* stack, void* result) {
  if (result == nullptr) torch.call.new_undefined(&result);
  stack[0] = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(result));
}

using Kernel = void (*)(uint64_t* stack, uint64_t inputs, uint64_t outputs);

void linear_kernel(uint64_t* stack, uint64_t, uint64_t) {
  Argument x(stack[0]), q(stack[1]), scales(stack[2]), bias(stack[3]);
  answer(stack, linear_of(x, q, scales, bias));
}

void dequantize_kernel(uint64_t* stack, uint64_t, uint64_t) {
  Argument q(stack[0]), scales(stack[1]);
  answer(stack, dequantize_of(q, scales, static_cast<Float>(stack[2])));
}

void grouped_linear_kernel(uint64_t* stack, uint64_t, uint64_t) {
  Argument x(stack[0]), q(stack[1]), scales(stack[2]), bias(stack[3]), offsets(stack[4]);
  answer(stack, grouped_linear_of(x, q, scales, bias, offsets));
}

void refined_linear_kernel(uint64_t* stack, uint64_t, uint64_t) {
  Argument x(stack[0]), q(stack[1]), scales(stack[2]), bias(stack[3]), columns(stack[4]), values(stack[5]);
  answer(stack, refined_linear_of(x, q, scales, bias, columns, values));
}

void embedding_kernel(uint64_t* stack, uint64_t, uint64_t) {
  Argument indices(stack[0]), q(stack[1]), scales(stack[2]);
  answer(stack, embedding_of(indices, q, scales, static_cast<Float>(stack[3])));
}

// Where torch does more than compute (tracing, transforms, dispatch modes), the complete op must be the
// one that is seen. The tensors come first among the arguments; the others are numbers.
template <uint64_t kTensors>
void decline(uint64_t* stack, uint64_t, uint64_t) {
  for (uint64_t i = 0; i < kTensors; ++i) Argument dropped(stack[i]);
  answer(stack, nullptr);
}

bool add(const char* key, const char* op, Kernel kernel) {
  void* library = nullptr;  // never deleted: that would unregister the kernel
  return torch.call.library_init_impl("w8a16", key, __FILE__, __LINE__, &library) == 0 &&
         torch.call.library_impl(library, op, kernel) == 0;
}

bool add_op(const char* op, Kernel kernel, Kernel declining, bool casts) {
  constexpr const char* kDeclining[] = {"CompositeExplicitAutograd", "Meta", "Tracer",
                                        "FuncTorchDynamicLayerFrontMode", "Python"};
  for (const char* key : kDeclining)
    if (!add(key, op, declining)) return false;
  if (casts && !add("AutocastCPU", op, declining)) return false;  // the others let autocast pass
  return add("CPU", op, kernel);
}

}  // namespace

bool register_ops(const TorchFunctions& functions) {
  torch.call = functions;
  torch.float32 = functions.dtype_float32();
  torch.bfloat16 = functions.dtype_bfloat16();
  torch.float16 = functions.dtype_float16();
  torch.int8 = functions.dtype_int8();
  torch.int32 = functions.dtype_int32();
  torch.int64 = functions.dtype_int64();
  torch.cpu = functions.device_type_cpu();
  return add_op("linear_native", linear_kernel, decline<4>, true) &&
         add_op("grouped_linear_native", grouped_linear_kernel, decline<5>, true) &&
         add_op("refined_linear_native", refined_linear_kernel, decline<6>, true) &&
         add_op("dequantize_native", dequantize_kernel, decline<2>, false) &&
         add_op("embedding_native", embedding_kernel, decline<3>, false);
}

}  // namespace w8a16
