// The operations on whole problems: the chosen variant on slices, one slice a thread.

#pragma once

#include "kernels.h"

namespace w8a16 {

// False where there is not enough working memory: a few MiB a thread.
bool linear(Linear problem);
bool linear_input_grad(LinearInputGrad problem);
bool refined_linear(Refined<Linear> problem);
bool refined_linear_input_grad(const Refined<LinearInputGrad>& problem);
// Whether every column is one of `features`, as the two above require.
bool columns_fit(const int32_t* columns, int64_t count, int64_t features);
QuantizeResult quantize(Quantize problem);
void gather(Gather problem);

// Both also clear the rows of the result that belong to no expert.
bool grouped_linear(const Grouped<Linear>& problem);
bool grouped_linear_input_grad(const Grouped<LinearInputGrad>& problem);
// Whether offsets are nondecreasing and within 0..rows, as the two above require.
bool offsets_fit(const int64_t* offsets, int64_t experts, int64_t rows);

}  // namespace w8a16
