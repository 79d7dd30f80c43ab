// The body of a variant: the algorithms, compiled with the vector primitives included before.
//
// Everything is in an unnamed namespace, so that no function compiled for one instruction set can
// stand in for another's at link time.

#pragma once

#include "gather.h"
#include "narrow.h"
#include "probe.h"
#include "quantize.h"
#include "wide.h"

namespace {

bool linear(const w8a16::Linear& p) {
  if (p.m == 0 || p.n == 0) return true;
  return p.wide ? linear_wide(p) : linear_narrow(p);
}

constexpr w8a16::Variant variant(const char* name, int64_t wide_from) {
  return {name, linear, linear_input_grad, quantize, gather, read_bytes, multiply_add, wide_from};
}

}  // namespace
