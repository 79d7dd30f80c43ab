// The operations on whole problems: the chosen variant on slices, one slice a thread.

#pragma once

#include "kernels.h"

namespace w8a16 {

void linear(Linear problem);
void linear_input_grad(LinearInputGrad problem);
QuantizeResult quantize(Quantize problem);
void gather(Gather problem);

}  // namespace w8a16
