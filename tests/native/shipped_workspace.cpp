// The kernels' workspace.cpp under another namespace, so that memory.cpp can stand in front of it.

#define w8a16 shipped
#include "workspace.cpp"
