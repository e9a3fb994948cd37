// Working memory of one thread, and loops over threads.
#pragma once

#include <stdlib.h>
#include <string.h>

#include "vector.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace hymate {
namespace HYMATE_ISA {

// A zeroed array of vectors, aligned to a cache line.
class Scratch {
    V *data_;

  public:
    explicit Scratch(int64_t vectors) {
        size_t bytes = ((size_t)(vectors > 0 ? vectors : 1) * sizeof(V) + 63) / 64 * 64;
        data_ = (V *)aligned_alloc(64, bytes);
        if (data_) memset((void *)data_, 0, bytes);
    }
    ~Scratch() { free((void *)data_); }
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;
    V *get() const { return data_; }
};

// Results never depend on the number of threads: units of work are cut by shape alone, each writes
// its own part of the output, and what several units contribute to is summed afterwards in one order.
// Which thread takes which unit is therefore free, and `dynamic` copes with busy cores.
#if defined(_OPENMP)
#define HYMATE_PRAGMA(text) _Pragma(#text)
#define HYMATE_PARALLEL(threads, all_well) \
    HYMATE_PRAGMA(omp parallel num_threads(threads) if ((threads) > 1) reduction(&& : all_well))
#define HYMATE_SHARE _Pragma("omp for schedule(dynamic, 1)")
#else
#define HYMATE_PARALLEL(threads, all_well)
#define HYMATE_SHARE
#endif

// An integer known at compile time, as an argument.
template <int n>
struct Size {
    static constexpr int value = n;
};

HYMATE_INLINE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// total[i] = part[0][i] + part[1][i] + ..., in that order.
static inline void sum_parts(const float *part, int64_t parts, int64_t size, float *total) {
    memset(total, 0, (size_t)size * sizeof(float));
    for (int64_t p = 0; p < parts; ++p)
        for (int64_t i = 0; i < size; ++i) total[i] += part[p * size + i];
}

}  // namespace HYMATE_ISA
}  // namespace hymate
