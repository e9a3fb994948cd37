// Selective scan, backward. One unit of work is one sample and a few blocks of W channels.
//
// The sequence is walked from its end in stretches of `checkpoint_steps`: each block's states are
// recomputed from its checkpoint and kept, with their decays, for that stretch only; then the gradient
// of the state runs backwards through them. With g the gradient of <C, h>, q the gradient of the state:
//
//     q_t = g_t C_t + a_{t+1} q_{t+1}          a_t = exp(step_t A)
//     dC_t = sum_c g_t h_t                     dB_t = sum_c q_t step_t u_t
//     du_t = g_t D + step_t <q_t, B_t>         dA   = sum_t q_t a_t h_{t-1} step_t
//     dstep_t = u_t <q_t, B_t> + <q_t a_t h_{t-1}, A>
//
// dB and dC are sums over channels, that is over lanes: the blocks of a unit add up vectors first, and
// only their total is summed over lanes.
#pragma once

#include "scan_forward.h"

namespace hymate {
namespace HYMATE_ISA {

constexpr int max_backward_group = W == 16 ? 8 : 4;

// Vectors over one stretch of positions, for one block.
struct Stretch {
    V u[T], step[T], slope[T], drive[T];  // slope: d step / d (delta + bias)
    V g[T], dy[T], gate[T], gate_slope[T];
    V y[T];                               // output before the gate
    V enter[T], rate[T];                  // <q, B>, and <q a h_before, A log2 e>
};

template <int G>
static inline void retreat(Stretch &s, const V *rate, const float *B, int64_t B_step, const float *C,
                           int64_t C_step, const V *start, V *q_state, V *dA_state, float *sums,
                           int64_t sums_step, int steps, bool want_y, Ahead *ahead) {
    V states[T + 1][G], decays[T][G];
    {
        V h[G];
        for (int n = 0; n < G; ++n) states[0][n] = h[n] = start[n];
        const float *B_t = B, *C_t = C;
        for (int t = 0; t < steps; ++t, B_t += B_step, C_t += C_step) {
            if (ahead) ahead->fetch();
            V d = s.step[t], e = s.drive[t];
#pragma GCC unroll 16
            for (int n = 0; n < G; ++n) {
                V a = exp2(d * rate[n]);
                h[n] = fma(a, h[n], e * B_t[n]);
                decays[t][n] = a;
                states[t + 1][n] = h[n];
            }
            if (want_y) {
                V sum[2] = {s.y[t], V{}};
#pragma GCC unroll 16
                for (int n = 0; n < G; ++n) sum[n & 1] = fma(h[n], splat(C_t[n]), sum[n & 1]);
                s.y[t] = sum[0] + sum[1];
            }
        }
    }
    V q[G], dA[G];
    for (int n = 0; n < G; ++n) q[n] = q_state[n], dA[n] = dA_state[n];
    for (int t = steps - 1; t >= 0; --t) {
        const float *B_t = B + t * B_step, *C_t = C + t * C_step;
        V g = s.g[t], d = s.step[t], e = s.drive[t];
        V enter[2] = {s.enter[t], V{}}, by_rate[2] = {s.rate[t], V{}};
        V over_lanes[ceil_div(2 * G, W) * W] = {};
#pragma GCC unroll 16
        for (int n = 0; n < G; ++n) {
            V now = fma(g, splat(C_t[n]), q[n]);
            over_lanes[n] = now * e;
            over_lanes[G + n] = g * states[t + 1][n];
            enter[n & 1] = fma(now, splat(B_t[n]), enter[n & 1]);
            q[n] = now * decays[t][n];
            V r = q[n] * states[t][n];
            by_rate[n & 1] = fma(r, rate[n], by_rate[n & 1]);
            dA[n] = fma(r, d, dA[n]);
        }
        s.enter[t] = enter[0] + enter[1];
        s.rate[t] = by_rate[0] + by_rate[1];
        float *to = sums + t * sums_step;
        for (int i = 0; i < 2 * G; i += W) {
            const int count = 2 * G - i < W ? 2 * G - i : W;
            store_some(to + i, load_some(to + i, count) + sum_rows(over_lanes + i), count);
        }
    }
    for (int n = 0; n < G; ++n) q_state[n] = q[n], dA_state[n] = dA[n];
}

// What a block carries from stretch to stretch.
struct BackwardBlock : Block {
    V *q, *dA;  // [states]
    V dD, dbias;
};

static inline void load_stretch(Stretch &s, const Scan &scan, const Sequence &dy, const Block &block,
                                int64_t t0, int steps) {
    for (int t = 0; t < steps; ++t) {
        V d = load_at(scan.delta, block, t0 + t) + block.bias;
        Softplus soft = {d, splat(1.0f)};
        if (scan.delta_softplus) soft = softplus(d);
        s.step[t] = soft.value;
        s.slope[t] = soft.slope;
        s.u[t] = load_at(scan.u, block, t0 + t);
        s.drive[t] = s.step[t] * s.u[t];
        s.y[t] = block.D * s.u[t];
        s.dy[t] = s.g[t] = load_at(dy, block, t0 + t);
        if (scan.z.data) {
            V z = load_at(scan.z, block, t0 + t), open = sigmoid(z);
            s.gate_slope[t] = open * (1.0f + z * (1.0f - open));
            s.g[t] = s.dy[t] * (z * open);
        }
        s.enter[t] = s.rate[t] = V{};
    }
}

static inline void store_stretch(const Stretch &s, const Scan &scan, const ScanGradients &out,
                                 BackwardBlock &block, int64_t t0, int steps) {
    for (int t = 0; t < steps; ++t) {
        const int64_t place = (block.sample * scan.length + t0 + t) * scan.channels + block.first;
        V du = fma(s.g[t], block.D, s.step[t] * s.enter[t]);
        V ddelta = fma(s.u[t], s.enter[t], s.rate[t] * ln_2) * s.slope[t];
        store_some(out.du + place, du, block.lanes);
        store_some(out.ddelta + place, ddelta, block.lanes);
        if (scan.z.data) store_some(out.dz + place, s.dy[t] * s.gate_slope[t] * s.y[t], block.lanes);
        block.dD = fma(s.g[t], s.u[t], block.dD);
        block.dbias = block.dbias + ddelta;
    }
}

static inline void retreat_block(Stretch &s, const Scan &scan, const ScanGradients &out,
                                 BackwardBlock &block, V *start, float *sums, int64_t t0,
                                 Ahead &ahead) {
    const int steps = stretch_length(scan, t0);
    const float *saved = t0 > 0 ? checkpoint_at(scan, out.checkpoints, block, t0) : nullptr;
    for (int64_t n = 0; n < scan.states; ++n) start[n] = saved ? load(saved + n * checkpoint_lanes) : V{};
    if (t0 > T)
        for (int64_t n = 0; n < scan.states; ++n)
            __builtin_prefetch(checkpoint_at(scan, out.checkpoints, block, t0 - T) + n * checkpoint_lanes, 0, 2);
    load_stretch(s, scan, out.dy, block, t0, steps);
    const float *B = at(scan.B, block.sample, t0), *C = at(scan.C, block.sample, t0);
    for_each_group<max_backward_group>(scan.states, [&](auto size, int64_t n) {
        retreat<decltype(size)::value>(s, block.rate + n, B + n, scan.B.step, C + n, scan.C.step, start + n,
                                       block.q + n, block.dA + n, sums + 2 * n, 2 * scan.states, steps,
                                       scan.z.data != nullptr, n == 0 ? &ahead : nullptr);
    });
    store_stretch(s, scan, out, block, t0, steps);
}

// Where a unit's sums go: the gradients themselves, or parts of them that are added up later.
struct BackwardTargets {
    float *dA, *dD, *dbias;  // (batch, channels, states), (batch, channels)
    float *dB, *dC;          // (batch, slices, length, states)
};

// Blocks of W channels per unit. More blocks share one sum over lanes, fewer give more threads work.
// From the shape alone, so that results do not depend on the machine's number of cores.
static inline int64_t blocks_per_unit(const Scan &scan) {
    int64_t channels = 128;
    while (channels > 64 && scan.batch * ceil_div(scan.channels, channels) < 8) channels /= 2;
    return channels / W > 0 ? channels / W : 1;
}

static inline void backward_unit(const Scan &scan, const ScanGradients &out, const BackwardTargets &to,
                                 int64_t sample, int64_t slice, int64_t slices, V *scratch) {
    const int64_t per_unit = blocks_per_unit(scan), N = scan.states;
    const int64_t first = slice * per_unit * W;
    const int64_t left = ceil_div(scan.channels - first, W), count = left < per_unit ? left : per_unit;
    BackwardBlock blocks[most_blocks];
    float *sums = (float *)scratch;
    V *start = scratch + ceil_div(2 * T * N, W), *next = start + N;
    memset((void *)next, 0, (size_t)(3 * N * count) * sizeof(V));
    for (int64_t i = 0; i < count; ++i, next += 3 * N) {
        BackwardBlock &block = blocks[i];
        block.rate = next, block.q = next + N, block.dA = next + 2 * N;
        block.dD = block.dbias = V{};
        fill_block(block, scan, sample, first + i * W);
    }
    const int64_t channels = blocks[count - 1].first + blocks[count - 1].lanes - first;
    Stretch stretch;
    for (int64_t t0 = (scan.length - 1) / T * T; t0 >= 0 && scan.length > 0; t0 -= T) {
        const int steps = stretch_length(scan, t0);
        memset(sums, 0, (size_t)(2 * T * N) * sizeof(float));
        Ahead ahead(t0 >= T ? T : 0, channels);
        const Sequence inputs[] = {scan.delta, scan.u, scan.z, out.dy};
        for (const Sequence &input : inputs) ahead.add(input, sample, t0 - T, first);
        const int64_t wide = scan.channels;
        const Sequence outputs[] = {{out.du, scan.length * wide, wide},
                                    {out.ddelta, scan.length * wide, wide},
                                    {out.dz, scan.length * wide, wide}};
        for (const Sequence &output : outputs) ahead.add(output, sample, t0 - T, first);
        for (int64_t i = 0; i < count; ++i)
            retreat_block(stretch, scan, out, blocks[i], start, sums, t0, ahead);
        for (int t = 0; t < steps; ++t) {
            const int64_t place = ((sample * slices + slice) * scan.length + t0 + t) * N;
            const float *from = sums + 2 * t * N;
            for_each_group<max_backward_group>(N, [&](auto size, int64_t n) {
                constexpr int G = decltype(size)::value;
                memcpy(to.dB + place + n, from + 2 * n, G * sizeof(float));
                memcpy(to.dC + place + n, from + 2 * n + G, G * sizeof(float));
            });
        }
    }
    for (int64_t i = 0; i < count; ++i) {
        const BackwardBlock &block = blocks[i];
        const int64_t channel = sample * scan.channels + block.first;
        for (int64_t n = 0; n < N; ++n) {
            float lanes[W];
            store(lanes, block.dA[n]);
            for (int64_t c = 0; c < block.lanes; ++c) to.dA[(channel + c) * N + n] = lanes[c];
        }
        if (to.dD) store_some(to.dD + channel, block.dD, block.lanes);
        if (to.dbias) store_some(to.dbias + channel, block.dbias, block.lanes);
    }
}

static bool scan_backward(const Scan &scan, const ScanGradients &out) {
    const int64_t blocks = ceil_div(scan.channels, W), per_unit = blocks_per_unit(scan);
    const int64_t slices = ceil_div(blocks, per_unit);
    const int64_t A_size = scan.channels * scan.states, BC_size = scan.length * scan.states;

    // Shared parameters get one part per sample, B and C one per slice of channels.
    auto part = [](bool needed, int64_t parts, int64_t size) {
        return needed ? (float *)malloc((size_t)(parts * size + 1) * sizeof(float)) : nullptr;
    };
    const bool split_A = !scan.A.per_sample, split_D = out.dD && !scan.D.per_sample;
    const bool split_bias = out.ddelta_bias && !scan.delta_bias.per_sample, split_BC = slices > 1;
    float *A_parts = part(split_A, scan.batch, A_size), *D_parts = part(split_D, scan.batch, scan.channels),
          *bias_parts = part(split_bias, scan.batch, scan.channels),
          *B_parts = part(split_BC, scan.batch * slices, BC_size),
          *C_parts = part(split_BC, scan.batch * slices, BC_size);
    bool enough = (A_parts || !split_A) && (D_parts || !split_D) && (bias_parts || !split_bias) &&
                  ((B_parts && C_parts) || !split_BC);
    if (enough) {
        const BackwardTargets to = {split_A ? A_parts : out.dA, split_D ? D_parts : out.dD,
                                    split_bias ? bias_parts : out.ddelta_bias, split_BC ? B_parts : out.dB,
                                    split_BC ? C_parts : out.dC};
        HYMATE_PARALLEL(scan.threads, enough)
        {
            FlushDenormals flush;
            Scratch scratch(ceil_div(2 * T * scan.states, W) + scan.states + 3 * scan.states * per_unit);
            enough = scratch.get() != nullptr;
            HYMATE_SHARE
            for (int64_t unit = 0; unit < scan.batch * slices; ++unit)
                if (scratch.get())
                    backward_unit(scan, out, to, unit / slices, unit % slices, slices, scratch.get());
        }
    }
    if (enough) {
        if (split_A) sum_parts(A_parts, scan.batch, A_size, out.dA);
        if (split_D) sum_parts(D_parts, scan.batch, scan.channels, out.dD);
        if (split_bias) sum_parts(bias_parts, scan.batch, scan.channels, out.ddelta_bias);
        for (int64_t sample = 0; split_BC && sample < scan.batch; ++sample) {
            sum_parts(B_parts + sample * slices * BC_size, slices, BC_size, out.dB + sample * BC_size);
            sum_parts(C_parts + sample * slices * BC_size, slices, BC_size, out.dC + sample * BC_size);
        }
    }
    free(A_parts), free(D_parts), free(bias_parts), free(B_parts), free(C_parts);
    return enough;
}

}  // namespace HYMATE_ISA
}  // namespace hymate
