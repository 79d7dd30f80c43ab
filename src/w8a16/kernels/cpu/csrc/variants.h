// The table of variants, the preferred one first, and the one that runs.

#pragma once

#include "kernels.h"

namespace w8a16 {

int variant_count();
const Variant& variant_at(int index);
const char* why_not(int index);  // null where this processor can run it
int chosen_index();
bool choose(int index);  // false where it cannot run
const Variant& chosen();

}  // namespace w8a16
