// RMSNorm over the last dimension:  y = w x r,  r = 1 / sqrt(mean(x^2) + epsilon).
//
// One unit of work is one sample and a tile of positions. Backward computes r again: that costs less
// than keeping and reading it.
#pragma once

#include "kernels.h"
#include "scratch.h"

namespace hymate {
namespace HYMATE_ISA {

constexpr int64_t norm_tile = 128;

HYMATE_INLINE float reciprocal_root(const float *x, int64_t width, float epsilon) {
    V squares = {};
    for (int64_t i = 0; i < width; i += W) {
        V value = load_some(x + i, width - i);
        squares = fma(value, value, squares);
    }
    return 1.0f / sqrtf(sum_lanes(squares) / (float)width + epsilon);
}

static void normalise_tile(const Norm &norm, int64_t sample, int64_t t0, float *y) {
    const int64_t t1 = t0 + norm_tile < norm.length ? t0 + norm_tile : norm.length, d = norm.width;
    const float *w = norm.weight.data + sample * norm.weight.sample;
    for (int64_t t = t0; t < t1; ++t) {
        const float *x = norm.x.data + sample * norm.x.sample + t * norm.x.step;
        float *to = y + (sample * norm.length + t) * d;
        V r = splat(reciprocal_root(x, d, norm.epsilon));
        for (int64_t i = 0; i < d; i += W)
            store_some(to + i, load_some(x + i, d - i) * r * load_some(w + i, d - i), d - i);
    }
}

// g = w dy:  dx = r g - x r^3 mean(g x),  dw = sum over positions of dy x r.
static void normalise_tile_backward(const Norm &norm, const NormGradients &out, int64_t sample, int64_t t0,
                                    float *dweight) {
    const int64_t t1 = t0 + norm_tile < norm.length ? t0 + norm_tile : norm.length, d = norm.width;
    const float *w = norm.weight.data + sample * norm.weight.sample;
    memset(dweight, 0, (size_t)d * sizeof(float));
    for (int64_t t = t0; t < t1; ++t) {
        const float *x = norm.x.data + sample * norm.x.sample + t * norm.x.step;
        const float *dy = out.dy.data + sample * out.dy.sample + t * out.dy.step;
        float *dx = out.dx + (sample * norm.length + t) * d;
        V products = {};
        for (int64_t i = 0; i < d; i += W)
            products = fma(load_some(dy + i, d - i) * load_some(w + i, d - i), load_some(x + i, d - i), products);
        const float r = reciprocal_root(x, d, norm.epsilon);
        V scale = splat(r), along = splat(-r * r * r * sum_lanes(products) / (float)d);
        for (int64_t i = 0; i < d; i += W) {
            V g = load_some(dy + i, d - i) * scale, value = load_some(x + i, d - i);
            store_some(dx + i, fma(value, along, g * load_some(w + i, d - i)), d - i);
            store_some(dweight + i, fma(g, value, load_some(dweight + i, d - i)), d - i);
        }
    }
}

static bool norm_forward(const Norm &norm, float *y) {
    const int64_t tiles = ceil_div(norm.length, norm_tile);
    bool all_well = true;
    HYMATE_PARALLEL(norm.threads, all_well)
    {
        HYMATE_SHARE
        for (int64_t unit = 0; unit < norm.batch * tiles; ++unit)
            normalise_tile(norm, unit / tiles, unit % tiles * norm_tile, y);
    }
    return all_well;
}

static bool norm_backward(const Norm &norm, const NormGradients &out) {
    const int64_t tiles = ceil_div(norm.length, norm_tile), d = norm.width;
    float *parts = (float *)malloc((size_t)(norm.batch * tiles * d + 1) * sizeof(float));
    if (!parts) return false;
    bool all_well = true;
    HYMATE_PARALLEL(norm.threads, all_well)
    {
        HYMATE_SHARE
        for (int64_t unit = 0; unit < norm.batch * tiles; ++unit)
            normalise_tile_backward(norm, out, unit / tiles, unit % tiles * norm_tile, parts + unit * d);
    }
    if (norm.weight.per_sample)
        for (int64_t sample = 0; sample < norm.batch; ++sample)
            sum_parts(parts + sample * tiles * d, tiles, d, out.dweight + sample * d);
    else
        sum_parts(parts, norm.batch * tiles, d, out.dweight);
    free(parts);
    return all_well;
}

}  // namespace HYMATE_ISA
}  // namespace hymate
