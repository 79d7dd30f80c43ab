// The ops `w8a16::..._native`, registered in a loaded torch without its headers or libraries.

#pragma once

#include <stdint.h>

namespace w8a16 {

// Functions of torch's stable C interface, in the order in which Python hands them over
// (kernels/cpu/torch_functions.py names them).
struct TorchFunctions {
  int32_t (*dtype_float32)();
  int32_t (*dtype_bfloat16)();
  int32_t (*dtype_float16)();
  int32_t (*dtype_int8)();
  int32_t (*dtype_int32)();
  int32_t (*dtype_int64)();
  int32_t (*device_type_cpu)();
  int32_t (*is_defined)(void* tensor, bool* out);
  int32_t (*get_dtype)(void* tensor, int32_t* out);
  int32_t (*get_dim)(void* tensor, int64_t* out);
  int32_t (*get_sizes)(void* tensor, int64_t** out);
  int32_t (*get_strides)(void* tensor, int64_t** out);
  int32_t (*get_data_ptr)(void* tensor, void** out);
  int32_t (*empty_strided)(int64_t dim, const int64_t* sizes, const int64_t* strides, int32_t dtype,
                           int32_t device_type, int32_t device_index, void** out);
  int32_t (*new_undefined)(void** out);
  int32_t (*delete_tensor)(void* tensor);
  int32_t (*library_init_impl)(const char* name_space, const char* key, const char* file, uint32_t line, void** out);
  int32_t (*library_impl)(void* library, const char* name, void (*kernel)(uint64_t*, uint64_t, uint64_t));
};

// Registers kernels for the ops that Python has defined; false where torch refuses.
bool register_ops(const TorchFunctions& functions);

}  // namespace w8a16
