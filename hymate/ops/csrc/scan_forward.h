// Selective scan, forward. One unit of work is one sample and W channels; see scan_torch.py for symbols.
//
// Lanes are channels, so u, delta, z, y are loaded as they lie, and B and C, which all channels share,
// are broadcast. States are taken in groups of at most max_group, held in registers over a stretch of
// `checkpoint_steps` positions; softplus, gate and skip are done once per stretch around the groups.
#pragma once

#include "kernels.h"
#include "scratch.h"

namespace hymate {
namespace HYMATE_ISA {

constexpr int T = (int)checkpoint_steps;

// Registers: one per state of the group, plus about ten for the exponential and the sums.
constexpr int max_forward_group = W == 16 ? 16 : W == 8 ? 8 : 4;

// What one block of W channels needs throughout its sequence.
struct Block {
    int64_t sample, first, lanes;  // channels first .. first + lanes - 1 of `sample`
    V *rate;                       // [states] A * log2(e)
    V D, bias;
};

static inline void fill_block(Block &block, const Scan &scan, int64_t sample, int64_t first) {
    block.sample = sample;
    block.first = first;
    block.lanes = scan.channels - first < W ? scan.channels - first : W;
    const float *A = scan.A.data + sample * scan.A.sample + first * scan.states;
    for (int64_t n = 0; n < scan.states; ++n) {
        float lanes[W] = {};
        for (int64_t i = 0; i < block.lanes; ++i) lanes[i] = A[i * scan.states + n] * log2_e;
        block.rate[n] = load(lanes);
    }
    block.D = scan.D.data ? load_some(scan.D.data + sample * scan.D.sample + first, block.lanes) : V{};
    block.bias = scan.delta_bias.data
                     ? load_some(scan.delta_bias.data + sample * scan.delta_bias.sample + first, block.lanes)
                     : V{};
}

HYMATE_INLINE const float *at(const Sequence &sequence, int64_t sample, int64_t t) {
    return sequence.data + sample * sequence.sample + t * sequence.step;
}

HYMATE_INLINE V load_at(const Sequence &sequence, const Block &block, int64_t t) {
    return load_some(at(sequence, block.sample, t) + block.first, block.lanes);
}

// Advances G states by `steps` positions and adds their part of the output to y.
template <int G>
static inline void advance(const V *step, const V *drive, const V *rate, const float *B, int64_t B_step,
                           const float *C, int64_t C_step, V *state, V *y, int steps) {
    V h[G];
    for (int n = 0; n < G; ++n) h[n] = state[n];
    for (int t = 0; t < steps; ++t, B += B_step, C += C_step) {
        V d = step[t], e = drive[t];
        V sum[2] = {y[t], V{}};
#pragma GCC unroll 16
        for (int n = 0; n < G; ++n) {
            h[n] = fma(exp2(d * rate[n]), h[n], e * B[n]);
            sum[n & 1] = fma(h[n], splat(C[n]), sum[n & 1]);
        }
        y[t] = sum[0] + sum[1];
    }
    for (int n = 0; n < G; ++n) state[n] = h[n];
}

static inline void scan_block(const Scan &scan, const ScanOutput &out, const Block &block, V *state) {
    V step[T], drive[T], y[T];
    const int64_t intervals = checkpoint_count(scan.length);
    for (int64_t t0 = 0; t0 < scan.length; t0 += T) {
        const int steps = (int)(scan.length - t0 < T ? scan.length - t0 : T);
        if (out.checkpoints && t0 > 0) {
            float *saved = out.checkpoints +
                           (block.sample * intervals + t0 / T - 1) * scan.states * scan.channels + block.first;
            for (int64_t n = 0; n < scan.states; ++n)
                store_some(saved + n * scan.channels, state[n], block.lanes);
        }
        for (int t = 0; t < steps; ++t) {
            V d = load_at(scan.delta, block, t0 + t) + block.bias;
            V u = load_at(scan.u, block, t0 + t);
            step[t] = scan.delta_softplus ? softplus(d).value : d;
            drive[t] = step[t] * u;
            y[t] = block.D * u;
        }
        const float *B = at(scan.B, block.sample, t0), *C = at(scan.C, block.sample, t0);
        int64_t n = 0;
        auto group = [&](auto size) {
            constexpr int G = decltype(size)::value;
            for (; n + G <= scan.states; n += G)
                advance<G>(step, drive, block.rate + n, B + n, scan.B.step, C + n, scan.C.step, state + n, y,
                           steps);
        };
        group(Size<max_forward_group>());
        group(Size<(W < 8 ? 4 : 8)>());
        group(Size<4>());
        group(Size<1>());
        for (int t = 0; t < steps; ++t) {
            if (scan.z.data) {
                V z = load_at(scan.z, block, t0 + t);
                y[t] = y[t] * (z * sigmoid(z));
            }
            store_some(out.y + (block.sample * scan.length + t0 + t) * scan.channels + block.first, y[t],
                       block.lanes);
        }
    }
}

static bool scan_forward(const Scan &scan, const ScanOutput &out) {
    const int64_t blocks = ceil_div(scan.channels, W);
    bool enough = true;
    HYMATE_PARALLEL(scan.threads, enough)
    {
        FlushDenormals flush;
        Scratch scratch(2 * scan.states);
        enough = scratch.get() != nullptr;
        HYMATE_SHARE
        for (int64_t unit = 0; unit < scan.batch * blocks; ++unit) {
            if (!scratch.get()) continue;
            Block block;
            block.rate = scratch.get();
            V *state = scratch.get() + scan.states;
            memset((void *)state, 0, (size_t)scan.states * sizeof(V));
            fill_block(block, scan, unit / blocks, unit % blocks * W);
            scan_block(scan, out, block, state);
        }
    }
    return enough;
}

}  // namespace HYMATE_ISA
}  // namespace hymate
