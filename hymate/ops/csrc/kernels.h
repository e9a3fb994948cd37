// What the kernels take and where to find them, independent of the instruction set.
//
// kernels.cpp is compiled once per instruction set into the namespace HYMATE_ISA. Only plain structs
// and function pointers cross this header: an inline function of the standard library compiled with
// AVX-512 flags could otherwise be the copy that the linker keeps for every caller.
#pragma once

#include <stdint.h>

namespace hymate {

// A (batch, length, width) array whose innermost stride is 1; the other strides are in elements.
struct Sequence {
    const float *data = nullptr;
    int64_t sample = 0;
    int64_t step = 0;
};

// A parameter shared by all samples (`sample` is 0), or one per sample, `sample` elements apart.
struct Parameter {
    const float *data = nullptr;
    int64_t sample = 0;
    bool per_sample = false;
};

struct Scan {
    int64_t batch, length, channels, states;
    Sequence u, delta, B, C, z;     // z.data null: no gate
    Parameter A, D, delta_bias;     // D.data, delta_bias.data null: absent
    bool delta_softplus;
    int threads;
};

// States at the start of each interval of `checkpoint_steps` positions but the first. Channels are cut
// into strips as wide as the widest vector, so that what one block reads together lies together:
// (batch, strips, intervals - 1, states, checkpoint_lanes), the same for every instruction set.
constexpr int64_t checkpoint_steps = 16;
constexpr int64_t checkpoint_lanes = 16;
constexpr int64_t checkpoint_count(int64_t length) {
    return length > 0 ? (length - 1) / checkpoint_steps : 0;
}
constexpr int64_t checkpoint_size(int64_t batch, int64_t length, int64_t channels, int64_t states) {
    return batch * ((channels + checkpoint_lanes - 1) / checkpoint_lanes) * checkpoint_count(length) * states *
           checkpoint_lanes;
}

struct ScanOutput {
    float *y;            // (batch, length, channels)
    float *checkpoints;  // null: not wanted
};

// All contiguous. Null where the input is absent. A parameter given once has its gradient summed over
// the batch, one given per sample has it per sample.
struct ScanGradients {
    Sequence dy;
    const float *checkpoints;
    float *du, *ddelta, *dz;       // (batch, length, channels)
    float *dB, *dC;                // (batch, length, states)
    float *dA, *dD, *ddelta_bias;  // ([batch,] channels, states), ([batch,] channels)
};

struct Convolution {
    int64_t batch, length, channels, width;  // width 1 to 4
    Sequence x;
    Parameter weight, bias;  // (channels, width), (channels); bias.data null: absent
    int threads;
};

struct ConvolutionGradients {
    Sequence dy;
    float *dx;              // (batch, length, channels)
    float *dweight, *dbias; // ([batch,] channels, width), ([batch,] channels)
};

// Rows of adjacent elements, `step` apart.
struct Matrix {
    const float *data = nullptr;
    int64_t step = 0;
};

struct Linear {
    int64_t rows, inputs, outputs;
    Matrix x;             // (rows, inputs); null where not needed
    const float *weight;  // (outputs, inputs)
    int threads;
};

struct Norm {
    int64_t batch, length, width;
    Sequence x;
    Parameter weight;  // (width)
    float epsilon;
    int threads;
};

struct NormGradients {
    Sequence dy;
    float *dx;       // (batch, length, width)
    float *dweight;  // ([batch,] width)
};

// Each position has its query, key and value in one row: (3, heads, width).
struct Attention {
    int64_t batch, length, heads, width;
    Sequence qkv;
    const int64_t *lengths;  // (batch): real positions of each sample; the others are padding
    int64_t window;          // positions seen on each side
    int threads;
};

// Zero where padding is.
struct AttentionGradients {
    Sequence dy;
    const float *y;       // (batch, length, heads, width): what forward gave
    const float *logsum;  // (batch, heads, length): log2 of each query's sum of e^score
    float *dqkv;          // (batch, length, 3, heads, width)
};

struct Kernels {
    const char *isa;
    int lanes;
    // False: no memory for the working buffers; the outputs are then undefined.
    bool (*scan_forward)(const Scan &, const ScanOutput &);
    bool (*scan_backward)(const Scan &, const ScanGradients &);
    bool (*convolution_forward)(const Convolution &, float *y);
    bool (*convolution_backward)(const Convolution &, const ConvolutionGradients &);
    bool (*norm_forward)(const Norm &, float *y);
    bool (*norm_backward)(const Norm &, const NormGradients &);
    bool (*attention_forward)(const Attention &, float *y, float *logsum);
    bool (*attention_backward)(const Attention &, const AttentionGradients &);
    bool (*linear_forward)(const Linear &, const float *bias, float *y);
    bool (*linear_backward_input)(const Linear &, const Matrix &dy, float *dx);
    bool (*linear_backward_weight)(const Linear &, const Matrix &dy, float *dweight, float *dbias);
    bool (*dropout)(const float *x, const int16_t *bits, int64_t count, int16_t threshold, float scale, float *y,
                    int threads);
    void (*exponential)(const float *x, float *y, int64_t count);  // e^x, for tests and the roofline
};

namespace baseline { extern const Kernels kernels; }
#if defined(HYMATE_X86_64)
namespace avx2 { extern const Kernels kernels; }
namespace avx512 { extern const Kernels kernels; }
#endif

}  // namespace hymate
