// Causal depthwise convolution and SiLU:  y_t = silu(bias + sum_k weight_k x_{t - K + 1 + k}).
//
// One unit of work is one sample and a tile of positions; within it each block of W channels walks
// along the tile with its last K inputs in registers.
#pragma once

#include "kernels.h"
#include "scratch.h"

namespace hymate {
namespace HYMATE_ISA {

constexpr int64_t tile = 128;

template <int K>
struct Filter {
    V weight[K], bias;
    int64_t first, lanes;
};

template <int K>
static inline Filter<K> filter_at(const Convolution &conv, int64_t sample, int64_t first) {
    Filter<K> filter;
    filter.first = first;
    filter.lanes = conv.channels - first < W ? conv.channels - first : W;
    const float *weight = conv.weight.data + sample * conv.weight.sample + first * K;
    for (int k = 0; k < K; ++k) {
        float lanes[W] = {};
        for (int64_t i = 0; i < filter.lanes; ++i) lanes[i] = weight[i * K + k];
        filter.weight[k] = load(lanes);
    }
    filter.bias = conv.bias.data
                      ? load_some(conv.bias.data + sample * conv.bias.sample + first, filter.lanes)
                      : V{};
    return filter;
}

// The K latest values, newest last.
template <int K>
struct Window {
    V value[K];
    HYMATE_INLINE_MEMBER void push(V newest) {
        for (int k = 0; k + 1 < K; ++k) value[k] = value[k + 1];
        value[K - 1] = newest;
    }
};

template <int K>
HYMATE_INLINE V respond(const Filter<K> &filter, const Window<K> &x) {
    V sum = filter.bias;
    for (int k = 0; k < K; ++k) sum = fma(filter.weight[k], x.value[k], sum);
    return sum;
}

// Value at position t, zero outside the sequence.
HYMATE_INLINE V value_at(const Sequence &sequence, int64_t sample, int64_t t, int64_t length, int64_t first,
                         int64_t lanes) {
    if (t < 0 || t >= length) return V{};
    return load_some(sequence.data + sample * sequence.sample + t * sequence.step + first, lanes);
}

template <int K>
static void convolve_tile(const Convolution &conv, int64_t sample, int64_t t0, float *y) {
    const int64_t t1 = t0 + tile < conv.length ? t0 + tile : conv.length;
    for (int64_t first = 0; first < conv.channels; first += W) {
        const Filter<K> filter = filter_at<K>(conv, sample, first);
        Window<K> x = {};
        for (int64_t t = t0 - K + 1; t < t0; ++t)
            x.push(value_at(conv.x, sample, t, conv.length, first, filter.lanes));
        for (int64_t t = t0; t < t1; ++t) {
            x.push(value_at(conv.x, sample, t, conv.length, first, filter.lanes));
            V response = respond(filter, x);
            store_some(y + (sample * conv.length + t) * conv.channels + first, response * sigmoid(response),
                       filter.lanes);
        }
    }
}

// g_t = dy_t silu'(response_t);  dx_t = sum_j weight_{K-1-j} g_{t+j};  dweight_k = sum_t g_t x_{t-K+1+k}.
// Positions t1 .. t1 + K - 2 are computed by this tile and by the next: dx needs them, dweight does not.
template <int K>
static void convolve_tile_backward(const Convolution &conv, const ConvolutionGradients &out, int64_t sample,
                                   int64_t t0, float *dweight, float *dbias) {
    const int64_t t1 = t0 + tile < conv.length ? t0 + tile : conv.length;
    for (int64_t first = 0; first < conv.channels; first += W) {
        const Filter<K> filter = filter_at<K>(conv, sample, first);
        Window<K> x = {}, g = {}, dw = {};
        V db = {};
        for (int64_t t = t0 - K + 1; t < t0; ++t)
            x.push(value_at(conv.x, sample, t, conv.length, first, filter.lanes));
        for (int64_t t = t0; t < t1 + K - 1; ++t) {
            x.push(value_at(conv.x, sample, t, conv.length, first, filter.lanes));
            V response = respond(filter, x), open = sigmoid(response);
            V dy = value_at(out.dy, sample, t, conv.length, first, filter.lanes);
            V now = dy * (open * (1.0f + response * (1.0f - open)));
            if (t >= conv.length) now = V{};
            g.push(now);
            if (t < t1) {
                for (int k = 0; k < K; ++k) dw.value[k] = fma(now, x.value[k], dw.value[k]);
                db = db + now;
            }
            if (t - K + 1 >= t0) {
                V dx = {};
                for (int j = 0; j < K; ++j) dx = fma(filter.weight[K - 1 - j], g.value[j], dx);
                store_some(out.dx + (sample * conv.length + t - K + 1) * conv.channels + first, dx,
                           filter.lanes);
            }
        }
        for (int k = 0; k < K; ++k) {
            float lanes[W];
            store(lanes, dw.value[k]);
            for (int64_t i = 0; i < filter.lanes; ++i) dweight[(first + i) * K + k] = lanes[i];
        }
        store_some(dbias + first, db, filter.lanes);
    }
}

template <typename Work>
static bool for_each_tile(const Convolution &conv, Work work) {
    const int64_t tiles = ceil_div(conv.length, tile);
    bool all_well = true;
    HYMATE_PARALLEL(conv.threads, all_well)
    {
        FlushDenormals flush;
        HYMATE_SHARE
        for (int64_t unit = 0; unit < conv.batch * tiles; ++unit) {
            switch (conv.width) {
                case 1: work(Size<1>(), unit); break;
                case 2: work(Size<2>(), unit); break;
                case 3: work(Size<3>(), unit); break;
                default: work(Size<4>(), unit);
            }
        }
    }
    return all_well;
}

static bool convolution_forward(const Convolution &conv, float *y) {
    const int64_t tiles = ceil_div(conv.length, tile);
    return for_each_tile(conv, [&](auto width, int64_t unit) {
        convolve_tile<decltype(width)::value>(conv, unit / tiles, unit % tiles * tile, y);
    });
}

static bool convolution_backward(const Convolution &conv, const ConvolutionGradients &out) {
    const int64_t tiles = ceil_div(conv.length, tile), size = conv.channels * conv.width;
    // Each tile's part of the weights' gradient, then each sample's, then (if shared) the batch's.
    auto array = [](int64_t count) { return (float *)malloc((size_t)(count + 1) * sizeof(float)); };
    float *weight_parts = array(conv.batch * tiles * size), *weight_samples = array(conv.batch * size),
          *bias_parts = array(conv.batch * tiles * conv.channels),
          *bias_samples = array(conv.batch * conv.channels);
    const bool enough = weight_parts && weight_samples && bias_parts && bias_samples;
    if (enough) {
        for_each_tile(conv, [&](auto width, int64_t unit) {
            convolve_tile_backward<decltype(width)::value>(conv, out, unit / tiles, unit % tiles * tile,
                                                           weight_parts + unit * size,
                                                           bias_parts + unit * conv.channels);
        });
        auto total = [&](const float *parts, float *samples, int64_t width, bool per_sample, float *result) {
            if (!result) return;
            for (int64_t sample = 0; sample < conv.batch; ++sample)
                sum_parts(parts + sample * tiles * width, tiles, width,
                          (per_sample ? result : samples) + sample * width);
            if (!per_sample) sum_parts(samples, conv.batch, width, result);
        };
        total(weight_parts, weight_samples, size, conv.weight.per_sample, out.dweight);
        total(bias_parts, bias_samples, conv.channels, conv.bias.per_sample, out.dbias);
    }
    free(weight_parts), free(weight_samples), free(bias_parts), free(bias_samples);
    return enough;
}

}  // namespace HYMATE_ISA
}  // namespace hymate
