// Asks for memory before it is needed.
//
// A unit of work goes through a slice of the channels, stretch by stretch of positions, and within a
// stretch block by block: jumps that no hardware foresees, and backwards in the gradient. So while one
// stretch is computed, the next is asked for in the order in which it lies in memory.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace hymate {
namespace HYMATE_ISA {

class Ahead {
    static constexpr int most = 7, line_bytes = 64;
    const char *row_[most] = {};
    int64_t row_step_[most] = {};
    int arrays_ = 0;
    int64_t rows_, line_ = 0, lines_;

  public:
    // `rows` positions of `channels` floats.
    Ahead(int64_t rows, int64_t channels)
        : rows_(rows), lines_((channels * (int64_t)sizeof(float) + line_bytes - 1) / line_bytes) {}

    void add(const float *first, int64_t step) {
        row_[arrays_] = (const char *)first;
        row_step_[arrays_++] = step * (int64_t)sizeof(float);
    }
    void add(const Sequence &sequence, int64_t sample, int64_t t, int64_t channel) {
        if (sequence.data)
            add(sequence.data + sample * sequence.sample + t * sequence.step + channel, sequence.step);
    }

    // Asks for one cache line of each array.
    HYMATE_INLINE_MEMBER void fetch() {
        if (rows_ <= 0) return;
        for (int i = 0; i < arrays_; ++i) __builtin_prefetch(row_[i] + line_ * line_bytes, 0, 2);
        if (++line_ < lines_) return;
        line_ = 0;
        --rows_;
        for (int i = 0; i < arrays_; ++i) row_[i] += row_step_[i];
    }
};

}  // namespace HYMATE_ISA
}  // namespace hymate
