// The kernels for one instruction set; CMakeLists.txt compiles this file once for each.

#if !defined(HYMATE_ISA)
#error "define HYMATE_ISA: the namespace, and name, of the instruction set compiled for"
#endif

#include "attention.h"
#include "convolution.h"
#include "dropout.h"
#include "linear.h"
#include "rms_norm.h"
#include "scan_backward.h"
#include "scan_forward.h"

#define HYMATE_TEXT_(name) #name
#define HYMATE_TEXT(name) HYMATE_TEXT_(name)

namespace hymate {
namespace HYMATE_ISA {

static void exponential(const float *x, float *y, int64_t count) {
    for (int64_t i = 0; i < count; i += W) store_some(y + i, exp(load_some(x + i, count - i)), count - i);
}

extern const Kernels kernels = {HYMATE_TEXT(HYMATE_ISA), W,           scan_forward, scan_backward,
                                convolution_forward,     convolution_backward, norm_forward, norm_backward,
                                attention_forward,       attention_backward,   linear_forward, linear_backward_input,
                                linear_backward_weight,  dropout, exponential};

}  // namespace HYMATE_ISA
}  // namespace hymate
