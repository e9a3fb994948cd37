// Products of a tall matrix (rows: positions of all samples) with a small one (a layer's weight).
//
//     y = x W^T + bias    dx = dy W    dW = dy^T x    dbias = sum of the rows of dy
//
// Tiles of `tile_rows` x 2 W results stay in registers while the sum runs; the small matrix is packed
// once into panels of 2 W columns. One unit of work is a block of rows.
#pragma once

#include "kernels.h"
#include "scratch.h"

namespace hymate {
namespace HYMATE_ISA {

constexpr int tile_rows = W == 16 ? 12 : 6;  // with both columns: 24 of 32 registers, or 12 of 16
constexpr int64_t panel = 2 * W, block_rows = 96, sum_rows_of_unit = 1536, sum_rows_at_once = 128;

struct Tile {
    V left[tile_rows], right[tile_rows];
};

// tile += a b, with a's row m at row[m], `step` apart from one k to the next, and b's rows `b_step` apart.
HYMATE_INLINE void accumulate(Tile &tile, const float *const *row, int64_t step, const float *b, int64_t b_step,
                              int64_t count) {
    V left[tile_rows], right[tile_rows];
    for (int m = 0; m < tile_rows; ++m) left[m] = tile.left[m], right[m] = tile.right[m];
    for (int64_t k = 0; k < count; ++k) {
        const V b_left = load(b + k * b_step), b_right = load(b + k * b_step + W);
        for (int m = 0; m < tile_rows; ++m) {
            const V a = splat(row[m][k * step]);
            left[m] = fma(a, b_left, left[m]);
            right[m] = fma(a, b_right, right[m]);
        }
    }
    for (int m = 0; m < tile_rows; ++m) tile.left[m] = left[m], tile.right[m] = right[m];
}

// Columns of the small matrix in panels: element (k, n) is at weight[k * k_step + n * n_step].
static inline void pack_panels(const float *weight, int64_t k_step, int64_t n_step, int64_t inner,
                               int64_t columns, float *packed) {
    for (int64_t n0 = 0; n0 < columns; n0 += panel)
        for (int64_t k = 0; k < inner; ++k)
            for (int64_t n = n0; n < n0 + panel; ++n)
                *packed++ = n < columns ? weight[k * k_step + n * n_step] : 0.0f;
}

// to (rows, columns) = from (rows, inner) times the packed matrix, plus bias.
static inline void multiply_rows(const Matrix &from, int64_t first, int64_t last, const float *packed,
                                 const float *bias, int64_t inner, int64_t columns, float *to) {
    for (int64_t n0 = 0; n0 < columns; n0 += panel) {
        const int64_t lanes = columns - n0, right_lanes = lanes - W;
        const V bias_left = bias ? load_some(bias + n0, lanes) : V{};
        const V bias_right = bias && right_lanes > 0 ? load_some(bias + n0 + W, right_lanes) : V{};
        for (int64_t t0 = first; t0 < last; t0 += tile_rows) {
            const int64_t count = last - t0 < tile_rows ? last - t0 : tile_rows;
            const float *row[tile_rows];
            Tile tile;
            for (int64_t m = 0; m < tile_rows; ++m) {
                row[m] = from.data + (t0 + (m < count ? m : 0)) * from.step;
                tile.left[m] = bias_left, tile.right[m] = bias_right;
            }
            accumulate(tile, row, 1, packed + n0 * inner, panel, inner);
            for (int64_t m = 0; m < count; ++m) {
                float *out = to + (t0 + m) * columns + n0;
                store_some(out, tile.left[m], lanes);
                if (right_lanes > 0) store_some(out + W, tile.right[m], right_lanes);
            }
        }
    }
}

static bool product(const Matrix &from, int64_t k_step, int64_t n_step, const float *weight, const float *bias,
                    int64_t rows, int64_t inner, int64_t columns, float *to, int threads) {
    Scratch packed(ceil_div(columns, panel) * panel * inner / W);
    if (!packed.get()) return false;
    pack_panels(weight, k_step, n_step, inner, columns, (float *)packed.get());
    bool all_well = true;
    HYMATE_PARALLEL(threads, all_well)
    {
        HYMATE_SHARE
        for (int64_t unit = 0; unit < ceil_div(rows, block_rows); ++unit) {
            const int64_t first = unit * block_rows, last = first + block_rows < rows ? first + block_rows : rows;
            multiply_rows(from, first, last, (const float *)packed.get(), bias, inner, columns, to);
        }
    }
    return all_well;
}

static bool linear_forward(const Linear &linear, const float *bias, float *y) {
    return product(linear.x, 1, linear.inputs, linear.weight, bias, linear.rows, linear.inputs, linear.outputs, y,
                   linear.threads);
}

static bool linear_backward_input(const Linear &linear, const Matrix &dy, float *dx) {
    return product(dy, linear.inputs, 1, linear.weight, nullptr, linear.rows, linear.outputs, linear.inputs, dx,
                   linear.threads);
}

// One unit's part of dW, (outputs, inputs), added to; few rows at a time, so that they stay in the cache.
static inline void add_outer_products(const Linear &linear, const Matrix &dy, int64_t first, int64_t last,
                                      float *dweight) {
    const int64_t inputs = linear.inputs, outputs = linear.outputs;
    float edge[sum_rows_at_once * panel];  // the last columns of x, padded to a panel
    for (int64_t t0 = first; t0 < last; t0 += sum_rows_at_once) {
        const int64_t count = last - t0 < sum_rows_at_once ? last - t0 : sum_rows_at_once;
        for (int64_t i0 = 0; i0 < inputs; i0 += panel) {
            const int64_t lanes = inputs - i0, right_lanes = lanes - W;
            const float *x = linear.x.data + t0 * linear.x.step + i0;
            int64_t x_step = linear.x.step;
            if (lanes < panel) {
                for (int64_t t = 0; t < count; ++t)
                    for (int64_t i = 0; i < panel; ++i) edge[t * panel + i] = i < lanes ? x[t * x_step + i] : 0.0f;
                x = edge, x_step = panel;
            }
            for (int64_t o0 = 0; o0 < outputs; o0 += tile_rows) {
                const int64_t rows = outputs - o0 < tile_rows ? outputs - o0 : tile_rows;
                const float *row[tile_rows];
                Tile tile = {};
                for (int64_t m = 0; m < tile_rows; ++m)
                    row[m] = dy.data + t0 * dy.step + o0 + (m < rows ? m : 0);
                accumulate(tile, row, dy.step, x, x_step, count);
                for (int64_t m = 0; m < rows; ++m) {
                    float *to = dweight + (o0 + m) * inputs + i0;
                    store_some(to, load_some(to, lanes) + tile.left[m], lanes);
                    if (right_lanes > 0)
                        store_some(to + W, load_some(to + W, right_lanes) + tile.right[m], right_lanes);
                }
            }
        }
    }
}

static bool linear_backward_weight(const Linear &linear, const Matrix &dy, float *dweight, float *dbias) {
    const int64_t units = ceil_div(linear.rows, sum_rows_of_unit), size = linear.outputs * linear.inputs;
    const int64_t stride = size + (dbias ? linear.outputs : 0);
    float *parts = (float *)calloc((size_t)(units * stride + 1), sizeof(float));
    if (!parts) return false;
    bool all_well = true;
    HYMATE_PARALLEL(linear.threads, all_well)
    {
        HYMATE_SHARE
        for (int64_t unit = 0; unit < units; ++unit) {
            const int64_t first = unit * sum_rows_of_unit;
            const int64_t last = first + sum_rows_of_unit < linear.rows ? first + sum_rows_of_unit : linear.rows;
            float *part = parts + unit * stride;
            add_outer_products(linear, dy, first, last, part);
            for (int64_t t = first; dbias && t < last; ++t)
                for (int64_t o = 0; o < linear.outputs; ++o) part[size + o] += dy.data[t * dy.step + o];
        }
    }
    memset(dweight, 0, (size_t)size * sizeof(float));
    if (dbias) memset(dbias, 0, (size_t)linear.outputs * sizeof(float));
    for (int64_t unit = 0; unit < units; ++unit) {
        for (int64_t i = 0; i < size; ++i) dweight[i] += parts[unit * stride + i];
        for (int64_t o = 0; dbias && o < linear.outputs; ++o) dbias[o] += parts[unit * stride + size + o];
    }
    free(parts);
    return all_well;
}

}  // namespace HYMATE_ISA
}  // namespace hymate
