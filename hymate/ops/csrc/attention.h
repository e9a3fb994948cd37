// Softmax attention, exact and linear in memory, over each sample's real positions or a window of them.
//
// One unit of work is one head of one sample. W queries, one to a lane, meet the keys strip by strip:
// forward as in online softmax (arXiv 1805.02867), backward from the saved logarithms of the sums
// (FlashAttention, arXiv 2205.14135, algorithm 4). All five products of matrices go through `multiply`.
// Scores are in units of log 2, so that exp2 serves.
#pragma once

#include "kernels.h"
#include "scratch.h"

namespace hymate {
namespace HYMATE_ISA {

constexpr int64_t strip = 128;
constexpr float lowest = -1e30f;  // finite: a query that sees nothing of a strip makes no NaN

// acc[m] += sum_k a[m * a_row + k * a_step] * b[k * b_step ...]: W rows of one vector each.
HYMATE_INLINE void multiply(V *acc, const float *a, int64_t a_row, int64_t a_step, const float *b,
                            int64_t b_step, int64_t count) {
    V sum[W];
    for (int m = 0; m < W; ++m) sum[m] = acc[m];
    for (int64_t k = 0; k < count; ++k) {
        const V row = load(b + k * b_step);
        for (int m = 0; m < W; ++m) sum[m] = fma(splat(a[m * a_row + k * a_step]), row, sum[m]);
    }
    for (int m = 0; m < W; ++m) acc[m] = sum[m];
}

// The same onto rows in memory, column block after column block.
HYMATE_INLINE void multiply_onto(float *rows, int64_t width, const float *a, int64_t a_row, int64_t a_step,
                                 const float *b, int64_t count) {
    for (int64_t i = 0; i < width; i += W) {
        V acc[W];
        for (int m = 0; m < W; ++m) acc[m] = load(rows + m * width + i);
        multiply(acc, a, a_row, a_step, b + i, width, count);
        for (int m = 0; m < W; ++m) store(rows + m * width + i, acc[m]);
    }
}

// What one unit works on: a head's keys and values, packed with rows padded to whole vectors, followed
// by enough zero rows that a strip may reach beyond the last key.
struct Head {
    const Attention *problem;
    const float *q, *k, *v;  // the sample's first position
    int64_t length, padded;  // positions that are real; width in whole vectors
    float *keys, *values, *dkeys, *dvalues;

    static int64_t rows(int64_t length) { return length + strip + W; }
    int64_t first_seen(int64_t q0) const { return q0 > problem->window ? q0 - problem->window : 0; }
    int64_t after_seen(int64_t q0) const {
        const int64_t left = length - q0;
        return problem->window < left - W ? q0 + W + problem->window : length;
    }
    int64_t queries(int64_t q0) const { return length - q0 < W ? length - q0 : W; }
};

// W rows of a head, zero where there are none: as rows times `factor`, and with one row to a lane.
static inline void pack_block(const Head &head, const float *from, int64_t step, int64_t q0, float factor,
                              float *rows, float *lanes, float lane_factor) {
    const int64_t width = head.problem->width, count = head.queries(q0);
    for (int64_t m = 0; m < W; ++m)
        for (int64_t i = 0; i < head.padded; ++i) {
            const float x = m < count && i < width ? from[(q0 + m) * step + i] : 0.0f;
            if (rows) rows[m * head.padded + i] = x * factor;
            if (i < width) lanes[i * W + m] = x * lane_factor;
        }
}

static inline void pack_rows(const Head &head, const float *from, float *to) {
    const int64_t width = head.problem->width, step = head.problem->qkv.step;
    memset(to, 0, (size_t)(Head::rows(head.length) * head.padded) * sizeof(float));
    for (int64_t t = 0; t < head.length; ++t)
        memcpy(to + t * head.padded, from + t * step, (size_t)width * sizeof(float));
}

// Scores of W keys from row j on (one vector each) for the queries from q0 on; `hidden` where not seen.
static inline void score_tile(const Head &head, const float *queries, int64_t q0, int64_t j, V *scores) {
    for (int m = 0; m < W; ++m) scores[m] = V{};
    multiply(scores, head.keys + j * head.padded, head.padded, 1, queries, W, head.problem->width);
    const int64_t window = head.problem->window;
    const bool all_seen =
        j + W <= head.length && j + W - 1 - q0 <= window && q0 + W - 1 - j <= window;
    if (all_seen) return;
    I lane;
    for (int i = 0; i < W; ++i) lane[i] = i;
    for (int m = 0; m < W; ++m) {
        const int64_t before = j + m - q0;  // the key's place, counted from the first query
        if (j + m >= head.length) {
            scores[m] = splat(lowest);
            continue;
        }
        auto bounded = [](int64_t x) { return (int32_t)(x < -W ? -W : x > 2 * W ? 2 * W : x); };
        const int32_t low = bounded(before - window), high = bounded(before + window);
        scores[m] = choose((lane >= low) & (lane <= high), scores[m], splat(lowest));
    }
}

static inline void attend_block(const Head &head, int64_t q0, float scale, float *work, float *y,
                                int64_t y_step, float *logsum) {
    const int64_t width = head.problem->width, padded = head.padded;
    float *queries = work, *sums = queries + width * W, *p = sums + W * padded;
    pack_block(head, head.q, head.problem->qkv.step, q0, 0.0f, nullptr, queries, scale * log2_e);
    memset(sums, 0, (size_t)(W * padded) * sizeof(float));
    V highest = splat(lowest), total = {};
    const int64_t end = head.after_seen(q0);
    for (int64_t s = head.first_seen(q0); s < end; s += strip) {
        const int64_t rows = ceil_div(end - s < strip ? end - s : strip, W) * W;
        V now = highest;
        for (int64_t j = 0; j < rows; j += W) {
            V scores[W];
            score_tile(head, queries, q0, s + j, scores);
            for (int m = 0; m < W; ++m) {
                now = most(scores[m], now);
                store(p + (j + m) * W, scores[m]);
            }
        }
        V fade = exp2(highest - now);
        highest = now;
        total = total * fade;
        for (int64_t j = 0; j < rows; ++j) {
            V share = exp2(load(p + j * W) - now);
            total = total + share;
            store(p + j * W, share);
        }
        for (int m = 0; m < W; ++m)
            for (int64_t i = 0; i < padded; i += W)
                store(sums + m * padded + i, load(sums + m * padded + i) * fade[m]);
        multiply_onto(sums, padded, p, 1, W, head.values + s * padded, rows);
    }
    for (int64_t m = 0; m < head.queries(q0); ++m) {
        for (int64_t i = 0; i < width; i += W)
            store_some(y + (q0 + m) * y_step + i, load(sums + m * padded + i) / total[m], width - i);
        logsum[q0 + m] = highest[m] + log2f(total[m]);
    }
}

struct HeadGradients {
    const float *dy, *y, *logsum;
    int64_t dy_step, y_step, dqkv_step;
    float *dq, *dk, *dv;
};

static inline void attend_block_backward(const Head &head, const HeadGradients &out, int64_t q0, float scale,
                                         float *work) {
    const int64_t width = head.problem->width, padded = head.padded, count = head.queries(q0);
    float *queries = work, *query_rows = queries + width * W, *dy = query_rows + W * padded,
          *dy_rows = dy + width * W, *dqueries = dy_rows + W * padded, *p = dqueries + W * padded,
          *ds = p + strip * W;
    pack_block(head, head.q, head.problem->qkv.step, q0, scale, query_rows, queries, scale * log2_e);
    pack_block(head, out.dy, out.dy_step, q0, 1.0f, dy_rows, dy, 1.0f);
    memset(dqueries, 0, (size_t)(W * padded) * sizeof(float));
    V logsum = {}, inner = {};  // <dy, y> of each query
    for (int64_t m = 0; m < count; ++m) {
        float sum = 0.0f;
        for (int64_t i = 0; i < width; ++i)
            sum += out.dy[(q0 + m) * out.dy_step + i] * out.y[(q0 + m) * out.y_step + i];
        inner[m] = sum;
        logsum[m] = out.logsum[q0 + m];
    }
    const int64_t end = head.after_seen(q0);
    for (int64_t s = head.first_seen(q0); s < end; s += strip) {
        const int64_t rows = ceil_div(end - s < strip ? end - s : strip, W) * W;
        for (int64_t j = 0; j < rows; j += W) {
            V scores[W], dshare[W] = {};
            score_tile(head, queries, q0, s + j, scores);
            multiply(dshare, head.values + (s + j) * padded, padded, 1, dy, W, width);
            for (int m = 0; m < W; ++m) {
                V share = exp2(scores[m] - logsum);
                store(p + (j + m) * W, share);
                store(ds + (j + m) * W, share * (dshare[m] - inner));
            }
            multiply_onto(head.dvalues + (s + j) * padded, padded, p + j * W, W, 1, dy_rows, W);
            multiply_onto(head.dkeys + (s + j) * padded, padded, ds + j * W, W, 1, query_rows, W);
        }
        multiply_onto(dqueries, padded, ds, 1, W, head.keys + s * padded, rows);
    }
    for (int64_t m = 0; m < count; ++m)
        for (int64_t i = 0; i < width; ++i)
            out.dq[(q0 + m) * out.dqkv_step + i] = dqueries[m * padded + i] * scale;
}

static inline Head head_at(const Attention &problem, int64_t unit, float *packed) {
    const int64_t sample = unit / problem.heads, head = unit % problem.heads;
    const int64_t all = problem.heads * problem.width;
    Head found;
    found.problem = &problem;
    found.q = problem.qkv.data + sample * problem.qkv.sample + head * problem.width;
    found.k = found.q + all, found.v = found.k + all;
    found.length = problem.lengths[sample];
    found.padded = ceil_div(problem.width, W) * W;
    const int64_t size = Head::rows(problem.length) * found.padded;
    found.keys = packed, found.values = packed + size;
    found.dkeys = packed + 2 * size, found.dvalues = packed + 3 * size;
    return found;
}

template <typename Work>
static bool for_each_head(const Attention &problem, int64_t arrays, int64_t work_size, Work work) {
    const int64_t padded = ceil_div(problem.width, W) * W;
    const int64_t packed = arrays * Head::rows(problem.length) * padded;
    bool enough = true;
    HYMATE_PARALLEL(problem.threads, enough)
    {
        FlushDenormals flush;
        Scratch scratch(ceil_div(packed + work_size, W));
        enough = scratch.get() != nullptr;
        HYMATE_SHARE
        for (int64_t unit = 0; unit < problem.batch * problem.heads; ++unit)
            if (scratch.get()) {
                float *memory = (float *)scratch.get();
                const Head head = head_at(problem, unit, memory + work_size);
                pack_rows(head, head.k, head.keys);
                pack_rows(head, head.v, head.values);
                work(head, unit, memory);
            }
    }
    return enough;
}

static bool attention_forward(const Attention &problem, float *y, float *logsum) {
    const int64_t width = problem.width, all = problem.heads * width, padded = ceil_div(width, W) * W;
    const float scale = 1.0f / sqrtf((float)width);
    return for_each_head(problem, 2, W * (width + padded + strip), [&](const Head &head, int64_t unit, float *work) {
        const int64_t sample = unit / problem.heads;
        float *to = y + sample * problem.length * all + unit % problem.heads * width;
        for (int64_t q0 = 0; q0 < head.length; q0 += W)
            attend_block(head, q0, scale, work, to, all, logsum + unit * problem.length);
        for (int64_t t = head.length; t < problem.length; ++t)
            memset(to + t * all, 0, (size_t)width * sizeof(float));
    });
}

static bool attention_backward(const Attention &problem, const AttentionGradients &out) {
    const int64_t width = problem.width, all = problem.heads * width, padded = ceil_div(width, W) * W;
    const float scale = 1.0f / sqrtf((float)width);
    const int64_t work_size = W * (2 * width + 3 * padded + 2 * strip);
    return for_each_head(problem, 4, work_size, [&](const Head &head, int64_t unit, float *work) {
        const int64_t sample = unit / problem.heads, offset = unit % problem.heads * width;
        const int64_t size = Head::rows(head.length) * padded;
        memset(head.dkeys, 0, (size_t)size * sizeof(float));
        memset(head.dvalues, 0, (size_t)size * sizeof(float));
        HeadGradients to;
        to.dy = out.dy.data + sample * out.dy.sample + offset, to.dy_step = out.dy.step;
        to.y = out.y + sample * problem.length * all + offset, to.y_step = all;
        to.logsum = out.logsum + unit * problem.length;
        to.dq = out.dqkv + sample * problem.length * 3 * all + offset, to.dqkv_step = 3 * all;
        to.dk = to.dq + all, to.dv = to.dk + all;
        for (int64_t q0 = 0; q0 < head.length; q0 += W) attend_block_backward(head, to, q0, scale, work);
        for (int64_t t = 0; t < problem.length; ++t) {
            float *dq = to.dq + t * to.dqkv_step, *dk = to.dk + t * to.dqkv_step, *dv = to.dv + t * to.dqkv_step;
            const size_t bytes = (size_t)width * sizeof(float);
            if (t < head.length) {
                memcpy(dk, head.dkeys + t * padded, bytes);
                memcpy(dv, head.dvalues + t * padded, bytes);
            } else {
                memset(dq, 0, bytes), memset(dk, 0, bytes), memset(dv, 0, bytes);
            }
        }
    });
}

}  // namespace HYMATE_ISA
}  // namespace hymate
