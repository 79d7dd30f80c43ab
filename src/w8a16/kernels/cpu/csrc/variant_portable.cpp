// Plain C++: every processor.

#include "vector_portable.h"

#include "variant.h"

namespace w8a16 {
extern const Variant variant_portable;
const Variant variant_portable = variant("portable", 2);
}  // namespace w8a16
