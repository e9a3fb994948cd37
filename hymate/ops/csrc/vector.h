// A vector of floats, one lane per channel, for the instruction set this unit is compiled for.
//
// Arithmetic operators come from the compiler's vector extension (GCC, Clang); only what has no
// operator is spelt in intrinsics. Everything is static: see the note on linkage in kernels.h.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define HYMATE_INLINE_MEMBER inline __attribute__((always_inline))
#define HYMATE_INLINE static HYMATE_INLINE_MEMBER

namespace hymate {
namespace HYMATE_ISA {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
typedef __m512 V;
#elif defined(__AVX2__) && defined(__FMA__)
typedef __m256 V;
#else
typedef float V __attribute__((vector_size(16)));
#endif
constexpr int W = sizeof(V) / sizeof(float);
typedef int32_t I __attribute__((vector_size(sizeof(V))));
typedef float Unaligned __attribute__((vector_size(sizeof(V)), aligned(4), may_alias));

HYMATE_INLINE V splat(float x) { return x - V{}; }  // x - 0 is x for every x; 0 + x is not
HYMATE_INLINE V load(const float *p) { return (V) * (const Unaligned *)p; }
HYMATE_INLINE void store(float *p, V v) { *(Unaligned *)p = (Unaligned)v; }

// The first `count` lanes; the others are zero, and are not touched in memory.
HYMATE_INLINE V load_some(const float *p, int64_t count) {
    if (count >= W) return load(p);
    float lanes[W] = {};
    for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
    return load(lanes);
}
HYMATE_INLINE void store_some(float *p, V v, int64_t count) {
    if (count >= W) return store(p, v);
    float lanes[W];
    store(lanes, v);
    for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

HYMATE_INLINE V fma(V a, V b, V c) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__) && defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#else
    return a * b + c;  // contracted where the target has it
#endif
}

// a < b ? a : b, and a > b ? a : b: a NaN in b stays, which is where callers put their data.
HYMATE_INLINE V least(V a, V b) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return _mm512_min_ps(a, b);
#elif defined(__AVX2__) && defined(__FMA__)
    return _mm256_min_ps(a, b);
#elif defined(__x86_64__)
    return _mm_min_ps(a, b);
#else
    I m = a < b;
    return (V)((m & (I)a) | (~m & (I)b));
#endif
}
HYMATE_INLINE V most(V a, V b) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__) && defined(__FMA__)
    return _mm256_max_ps(a, b);
#elif defined(__x86_64__)
    return _mm_max_ps(a, b);
#else
    I m = a > b;
    return (V)((m & (I)a) | (~m & (I)b));
#endif
}

HYMATE_INLINE float sum_lanes(V v) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return _mm512_reduce_add_ps(v);
#else
    float sum = 0.0f;
    for (int i = 0; i < W; ++i) sum += v[i];
    return sum;
#endif
}

// condition ? a : b, lane by lane.
HYMATE_INLINE V choose(I condition, V a, V b) { return (V)((condition & (I)a) | (~condition & (I)b)); }

// W sums over lanes at once: lane i of the result is the sum of the lanes of row[i].
// Pairs of rows are interleaved and added, so each level halves the number of vectors.
#if defined(__AVX512F__) && defined(__AVX512DQ__)
HYMATE_INLINE V sum_pair_of_lanes(V a, V b) {
    return _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b);
}
HYMATE_INLINE V sum_quads(const V *row) {
    __m512d ab = _mm512_castps_pd(sum_pair_of_lanes(row[0], row[1]));
    __m512d cd = _mm512_castps_pd(sum_pair_of_lanes(row[2], row[3]));
    return _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)) + _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
}
HYMATE_INLINE V sum_blocks(V a, V b) {
    return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xdd);
}
HYMATE_INLINE V sum_rows(const V *row) {
    return sum_blocks(sum_blocks(sum_quads(row), sum_quads(row + 4)),
                      sum_blocks(sum_quads(row + 8), sum_quads(row + 12)));
}
#elif defined(__AVX2__) && defined(__FMA__)
HYMATE_INLINE V sum_quads(const V *row) {
    return _mm256_hadd_ps(_mm256_hadd_ps(row[0], row[1]), _mm256_hadd_ps(row[2], row[3]));
}
HYMATE_INLINE V sum_rows(const V *row) {
    V a = sum_quads(row), b = sum_quads(row + 4);
    return _mm256_permute2f128_ps(a, b, 0x20) + _mm256_permute2f128_ps(a, b, 0x31);
}
#else
HYMATE_INLINE V sum_rows(const V *row) {
    V sum;
    for (int i = 0; i < W; ++i) sum[i] = (row[i][0] + row[i][1]) + (row[i][2] + row[i][3]);
    return sum;
}
#endif

// 2^x. Relative error below 1.5e-7; 0 below 2^-126 and infinity from 2^127.5 on; NaN stays NaN.
// x = n + f with n whole and |f| <= 1/2; 2^f is 1 + f q(f), q minimax of degree 4 (error 9.2e-8).
// The form 1 + f q(f) keeps 1 - 2^x accurate for small x: slow decays are what a long memory is made of.
HYMATE_INLINE V exp2(V x) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    V f = _mm512_reduce_ps(x, 0x00 | _MM_FROUND_NO_EXC);
    V n = x - f;
#else
    // Adding 1.5 * 2^23 rounds to a whole number; 127 more leaves the biased exponent in the low bits.
    const V shift = splat(12582912.0f + 127.0f);
    x = most(splat(-127.0f), least(splat(128.0f), x));
    V shifted = x + shift;
    V f = x - (shifted - shift);
#endif
    V p = fma(splat(1.32647040e-03f), f, splat(9.67150927e-03f));
    p = fma(p, f, splat(5.55073358e-02f));
    p = fma(p, f, splat(2.40222424e-01f));
    p = fma(p, f, splat(6.93146944e-01f));
    p = fma(p, f, splat(1.0f));
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return _mm512_scalef_ps(p, n);
#else
    return p * (V)((I)shifted << 23);
#endif
}

constexpr float log2_e = 1.44269504088896341f;
constexpr float ln_2 = 0.693147180559945309f;

HYMATE_INLINE V exp(V x) { return exp2(x * log2_e); }

struct Softplus {
    V value;  // log(1 + e^x)
    V slope;  // its derivative, 1 / (1 + e^-x)
};

// log(1 + e^x) = max(x, 0) + log1p(t), t = e^-|x|, with log1p(t) = 2 artanh(t / (2 + t)): relative
// accuracy holds down to the smallest step sizes. The series in s^2 <= 1/9 is minimax (error 4.5e-9).
HYMATE_INLINE Softplus softplus(V x) {
    V negative = splat(0.0f) - x;
    V t = exp(least(x, negative));
    V s = t / (t + 2.0f);
    V s2 = s * s;
    V q = fma(splat(1.40113351e-01f), s2, splat(1.39997543e-01f));
    q = fma(q, s2, splat(2.00108388e-01f));
    q = fma(q, s2, splat(3.33332067e-01f));
    V log1p = 2.0f * s * fma(q, s2, splat(1.0f));
    V sigmoid = choose(x >= 0.0f, splat(1.0f), t) / (1.0f + t);
    return {most(splat(0.0f), x) + log1p, sigmoid};
}

HYMATE_INLINE V sigmoid(V x) {
    V t = exp(least(x, splat(0.0f) - x));
    return choose(x >= 0.0f, splat(1.0f), t) / (1.0f + t);
}

// Flushes denormals to zero while it lives. A state that decays under zero input becomes denormal,
// and some processors then need a hundred cycles for each operation on it.
class FlushDenormals {
#if defined(__x86_64__)
    unsigned saved_;
  public:
    FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }
    ~FlushDenormals() { _mm_setcsr(saved_); }
#else
  public:
    FlushDenormals() {}
#endif
    FlushDenormals(const FlushDenormals &) = delete;
    FlushDenormals &operator=(const FlushDenormals &) = delete;
};

}  // namespace HYMATE_ISA
}  // namespace hymate
