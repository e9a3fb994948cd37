// Selective scan, forward; see scan_torch.py for symbols. One unit of work is one sample and a slice of
// its channels, in blocks of W.
//
// Lanes are channels, so u, delta, z, y are loaded as they lie, and B and C, which all channels share,
// are broadcast. States are taken in groups of at most max_group, held in registers over a stretch of
// `checkpoint_steps` positions; softplus, gate and skip are done once per stretch around the groups.
#pragma once

#include "ahead.h"
#include "kernels.h"
#include "scratch.h"

namespace hymate {
namespace HYMATE_ISA {

constexpr int T = (int)checkpoint_steps;

// Registers: one per state of the group, plus about ten for the exponential and the sums.
constexpr int max_forward_group = W == 16 ? 16 : W == 8 ? 8 : 4;

// Cuts the states into groups of a size known at compile time: visit(Size<G>(), first state).
template <int largest, typename Visit>
HYMATE_INLINE void for_each_group(int64_t states, Visit visit) {
    int64_t n = 0;
    for (; n + largest <= states; n += largest) visit(Size<largest>(), n);
    if constexpr (largest > 8)
        for (; n + 8 <= states; n += 8) visit(Size<8>(), n);
    if constexpr (largest > 4)
        for (; n + 4 <= states; n += 4) visit(Size<4>(), n);
    for (; n < states; ++n) visit(Size<1>(), n);
}

// Most blocks in a slice: 128 channels, 8 KiB of each input per stretch.
constexpr int64_t most_blocks = 128 / W;

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

static inline int64_t channels_of(const Block *blocks, int64_t count) {
    return blocks[count - 1].first + blocks[count - 1].lanes - blocks[0].first;
}

// Positions in the stretch that begins at t0.
HYMATE_INLINE int stretch_length(const Scan &scan, int64_t t0) {
    const int64_t left = scan.length - t0;
    return (int)(left < 0 ? 0 : left < T ? left : T);
}

HYMATE_INLINE const float *at(const Sequence &sequence, int64_t sample, int64_t t) {
    return sequence.data + sample * sequence.sample + t * sequence.step;
}

HYMATE_INLINE V load_at(const Sequence &sequence, const Block &block, int64_t t) {
    return load_some(at(sequence, block.sample, t) + block.first, block.lanes);
}

// Where the state before position t0 > 0 of this block is saved; states are checkpoint_lanes apart.
template <typename Float>
HYMATE_INLINE Float *checkpoint_at(const Scan &scan, Float *checkpoints, const Block &block, int64_t t0) {
    const int64_t strips = ceil_div(scan.channels, checkpoint_lanes), strip = block.first / checkpoint_lanes;
    const int64_t interval = (block.sample * strips + strip) * checkpoint_count(scan.length) + t0 / T - 1;
    return checkpoints + interval * scan.states * checkpoint_lanes + block.first % checkpoint_lanes;
}

// Advances G states by `steps` positions and adds their part of the output to y.
template <int G>
static inline void advance(const V *step, const V *drive, const V *rate, const float *B, int64_t B_step,
                           const float *C, int64_t C_step, V *state, V *y, int steps,
                           Ahead *ahead) {
    V h[G];
    for (int n = 0; n < G; ++n) h[n] = state[n];
    for (int t = 0; t < steps; ++t, B += B_step, C += C_step) {
        if (ahead) ahead->fetch();
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

static inline void scan_stretch(const Scan &scan, const ScanOutput &out, const Block &block, V *state,
                                int64_t t0, Ahead &ahead) {
    V step[T], drive[T], y[T];
    const int steps = stretch_length(scan, t0);
    if (out.checkpoints && t0 > 0) {
        float *saved = checkpoint_at(scan, out.checkpoints, block, t0);
        for (int64_t n = 0; n < scan.states; ++n) store(saved + n * checkpoint_lanes, state[n]);
    }
    for (int t = 0; t < steps; ++t) {
        V d = load_at(scan.delta, block, t0 + t) + block.bias;
        V u = load_at(scan.u, block, t0 + t);
        step[t] = scan.delta_softplus ? softplus(d).value : d;
        drive[t] = step[t] * u;
        y[t] = block.D * u;
    }
    const float *B = at(scan.B, block.sample, t0), *C = at(scan.C, block.sample, t0);
    for_each_group<max_forward_group>(scan.states, [&](auto size, int64_t n) {
        advance<decltype(size)::value>(step, drive, block.rate + n, B + n, scan.B.step, C + n, scan.C.step,
                                       state + n, y, steps, n == 0 ? &ahead : nullptr);
    });
    for (int t = 0; t < steps; ++t) {
        if (scan.z.data) {
            V z = load_at(scan.z, block, t0 + t);
            y[t] = y[t] * (z * sigmoid(z));
        }
        store_some(out.y + (block.sample * scan.length + t0 + t) * scan.channels + block.first, y[t],
                   block.lanes);
    }
}

static inline void forward_unit(const Scan &scan, const ScanOutput &out, int64_t sample, int64_t first,
                                int64_t count, V *scratch) {
    Block blocks[most_blocks];
    V *state = scratch, *rate = scratch + count * scan.states;
    memset((void *)state, 0, (size_t)(count * scan.states) * sizeof(V));
    for (int64_t i = 0; i < count; ++i) {
        blocks[i].rate = rate + i * scan.states;
        fill_block(blocks[i], scan, sample, (first + i) * W);
    }
    for (int64_t t0 = 0; t0 < scan.length; t0 += T) {
        Ahead ahead(stretch_length(scan, t0 + T), channels_of(blocks, count));
        ahead.add(scan.delta, sample, t0 + T, first * W);
        ahead.add(scan.u, sample, t0 + T, first * W);
        ahead.add(scan.z, sample, t0 + T, first * W);
        for (int64_t i = 0; i < count; ++i)
            scan_stretch(scan, out, blocks[i], state + i * scan.states, t0, ahead);
    }
}

// Slices of the channels, so that the threads have equal shares or many small ones. More channels to a
// slice are better for memory. Each channel is computed alone here: the cut has no effect on the result.
static inline int64_t forward_slices(const Scan &scan, int64_t blocks) {
    int64_t slices = ceil_div(blocks, most_blocks);
    while (slices < blocks && scan.batch * slices % scan.threads && scan.batch * slices < 4 * scan.threads)
        ++slices;
    return slices;
}

static bool scan_forward(const Scan &scan, const ScanOutput &out) {
    const int64_t blocks = ceil_div(scan.channels, W);
    if (blocks == 0) return true;
    const int64_t per_unit = ceil_div(blocks, forward_slices(scan, blocks));
    const int64_t slices = ceil_div(blocks, per_unit);
    bool enough = true;
    HYMATE_PARALLEL(scan.threads, enough)
    {
        FlushDenormals flush;
        Scratch scratch(2 * per_unit * scan.states);
        enough = scratch.get() != nullptr;
        HYMATE_SHARE
        for (int64_t unit = 0; unit < scan.batch * slices; ++unit) {
            const int64_t first = unit % slices * per_unit, left = blocks - first;
            if (scratch.get())
                forward_unit(scan, out, unit / slices, first, left < per_unit ? left : per_unit,
                             scratch.get());
        }
    }
    return enough;
}

}  // namespace HYMATE_ISA
}  // namespace hymate
