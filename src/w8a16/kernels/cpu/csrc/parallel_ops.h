// The operations on whole problems: the chosen variant on slices, one slice a thread.

#pragma once

#include "kernels.h"

namespace w8a16 {

// False where there is not enough working memory: a few MiB a thread.
bool linear(Linear problem);
bool linear_input_grad(LinearInputGrad problem);
QuantizeResult quantize(Quantize problem);
void gather(Gather problem);

}  // namespace w8a16
