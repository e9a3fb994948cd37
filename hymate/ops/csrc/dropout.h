// Dropout from sixteen random bits per element.
#pragma once

#include "kernels.h"
#include "scratch.h"

namespace hymate {
namespace HYMATE_ISA {

// y = x * scale where bits >= threshold, else 0. Backward is the same with the gradient as x.
static bool dropout(const float *x, const int16_t *bits, int64_t count, int16_t threshold, float scale, float *y,
                    int threads) {
    constexpr int64_t block = 1 << 14;
    bool all_well = true;
    HYMATE_PARALLEL(threads, all_well)
    {
        HYMATE_SHARE
        for (int64_t unit = 0; unit < ceil_div(count, block); ++unit) {
            const int64_t first = unit * block, last = first + block < count ? first + block : count;
            for (int64_t i = first; i < last; ++i) y[i] = bits[i] >= threshold ? x[i] * scale : 0.0f;
        }
    }
    return all_well;
}

}  // namespace HYMATE_ISA
}  // namespace hymate
