// Causal attention, there and back: most of what lies between the matrix products, because small models have narrow heads.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "scalars.h"

namespace {

// A block of queries, or of keys, lies in the lanes of one vector, so that no sum ever runs across lanes. The vector is a register
// of the processor that is compiled for: the compiler takes a wider one apart into several, which no longer fit and go through
// memory, and a narrower one leaves lanes idle.
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;  // SSE, NEON
#endif
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t whole_lanes __attribute__((vector_size(4 * LANES)));
inline lanes all(float x) { return lanes{} + x; }
inline lanes exponential(lanes x) { return exponential<lanes, whole_lanes>(x, all(-87.f)); }

// The positions that block `b` holds. What a position must not see is replaced by a choice between values, never by arithmetic:
// its exponential may be infinite.
template <int... LANE>
inline whole_lanes counted(std::integer_sequence<int, LANE...>) {
    return whole_lanes{LANE...};
}
inline whole_lanes positions(int b) { return counted(std::make_integer_sequence<int, LANES>()) + b * LANES; }

// A vector for each of a head's numbers: in registers as far as they go, where the compiler knows how many there are.
template <int WIDTH>
struct Sums {
    lanes values[WIDTH];

    explicit Sums(int) {}
    operator lanes*() { return values; }
};
template <>
struct Sums<0> {
    std::vector<lanes> values;

    explicit Sums(int K) : values(K) {}
    operator lanes*() { return values.data(); }
};

// One head of one sequence: rows of K numbers as they are, and transposed with a block of LANES positions to a vector. WIDTH is K
// where the compiler knows it, else 0.
template <int WIDTH>
struct Head {
    int T, K, blocks;
    std::vector<float> rows;
    std::vector<lanes> columns;

    Head(int T, int K) : T(T), K(K), blocks((T + LANES - 1) / LANES), rows(size_t(T) * K), columns(size_t(blocks) * K) {}

    int width() const { return WIDTH ? WIDTH : K; }
    float* row(int t) { return &rows[size_t(t) * width()]; }
    lanes* block(int b) { return &columns[size_t(b) * width()]; }

    void transpose() {
        for (int b = 0; b < blocks; b++) {
            float* to = reinterpret_cast<float*>(block(b));  // padding lanes stay 0, as they were made
            for (int l = 0, end = std::min(LANES, T - b * LANES); l < end; l++) {
                const float* from = row(b * LANES + l);
                for (int k = 0; k < width(); k++) to[k * LANES + l] = from[k];
            }
        }
    }

    void add_columns(int b, const lanes* values) {  // to the rows of block b
        for (int l = 0; l < LANES && b * LANES + l < T; l++)
            for (int k = 0; k < width(); k++) row(b * LANES + l)[k] += values[k][l];
    }

    template <class scalar>
    void read(const scalar* from, size_t stride) {
        for (int t = 0; t < T; t++) {
            float* to = row(t);
#pragma GCC ivdep
            for (int k = 0; k < width(); k++) to[k] = load(from[t * stride + k]);
        }
    }

    template <class scalar>
    void write(scalar* to, size_t stride) {
        for (int t = 0; t < T; t++) {
            const float* from = row(t);
#pragma GCC ivdep
            for (int k = 0; k < width(); k++) store(to[t * stride + k], from[k]);
        }
    }

    // Rotary positions: the pair (k, k + K/2) turned by its angle, and scaled.
    template <class scalar>
    void read_turned(const scalar* from, size_t stride, const float* cos, const float* sin, float scale) {
        const int half = width() / 2;
        for (int t = 0; t < T; t++) {
            const scalar* at = from + t * stride;
            const float *c = cos + t * width(), *s = sin + t * width();
            float* to = row(t);
#pragma GCC ivdep
            for (int k = 0; k < half; k++) {
                const float a = load(at[k]) * scale, b = load(at[k + half]) * scale;
                to[k] = a * c[k] - b * s[k];
                to[k + half] = b * c[k] + a * s[k];
            }
        }
    }

    template <class scalar>
    void write_turned_back(scalar* to, size_t stride, const float* cos, const float* sin, float scale) {
        const int half = width() / 2;
        for (int t = 0; t < T; t++) {
            scalar* at = to + t * stride;
            const float *c = cos + t * width(), *s = sin + t * width(), *from = row(t);
#pragma GCC ivdep
            for (int k = 0; k < half; k++) {
                const float a = from[k] * scale, b = from[k + half] * scale;
                store(at[k], a * c[k] + b * s[k]);
                store(at[k + half], b * c[k] - a * s[k]);
            }
        }
    }
};

template <int WIDTH>
inline lanes dot(const float* row, const lanes* block, int width) {
    lanes even{}, odd{};
    for (int k = 0; k + 1 < width; k += 2) {
        even += row[k] * block[k];
        odd += row[k + 1] * block[k + 1];
    }
    return even + odd;
}

template <int WIDTH>
void attend(Head<WIDTH>& q, Head<WIDTH>& k, Head<WIDTH>& v, Head<WIDTH>& y, float* lse) {
    const int T = q.T, K = q.width();
    std::vector<lanes> scores(T);
    Sums<WIDTH> out(K);
    for (int b = 0; b < q.blocks; b++) {
        const lanes* queries = q.block(b);
        const int first = b * LANES, end = std::min(T, first + LANES);
        lanes highest = all(-INFINITY), sum{};
        for (int j = 0; j < end; j++) {
            lanes score = dot<WIDTH>(k.row(j), queries, K);
            if (j > first) score = positions(b) >= j ? score : all(-INFINITY);
            scores[j] = score;
            highest = score > highest ? score : highest;
        }
        for (int d = 0; d < K; d++) out[d] = lanes{};
        for (int j = 0; j < end; j++) {
            lanes weight = exponential(scores[j] - highest);
            if (j > first) weight = positions(b) >= j ? weight : lanes{};
            sum += weight;
            const float* value = v.row(j);
            for (int d = 0; d < K; d++) out[d] += value[d] * weight;
        }
        for (int l = 0; first + l < end; l++) lse[first + l] = highest[l] + std::log(sum[l]);
        for (int d = 0; d < K; d++) out[d] /= sum;
        for (int l = 0; first + l < end; l++)
            for (int d = 0; d < K; d++) y.row(first + l)[d] = out[d][l];
    }
}

// Twice over the pairs of positions: with queries in the lanes for dq, with keys in the lanes for dk and dv. To work out a weight
// twice costs less than to add across lanes.
template <int WIDTH>
void attend_backward(
    Head<WIDTH>& q, Head<WIDTH>& k, Head<WIDTH>& v, Head<WIDTH>& dy, const float* lse, const float* delta, Head<WIDTH>& dq,
    Head<WIDTH>& dk, Head<WIDTH>& dv) {
    const int T = q.T, K = q.width();
    Sums<WIDTH> one(K), two(K);
    for (int b = 0; b < q.blocks; b++) {
        const lanes *queries = q.block(b), *gradients = dy.block(b);
        const int first = b * LANES, end = std::min(T, first + LANES);
        lanes its_lse{}, its_delta{};
        for (int l = 0; first + l < end; l++) its_lse[l] = lse[first + l], its_delta[l] = delta[first + l];
        for (int d = 0; d < K; d++) one[d] = lanes{};
        for (int j = 0; j < end; j++) {
            lanes weight = exponential(dot<WIDTH>(k.row(j), queries, K) - its_lse);
            if (j > first) weight = positions(b) >= j ? weight : lanes{};
            const lanes ds = weight * (dot<WIDTH>(v.row(j), gradients, K) - its_delta);
            const float* key = k.row(j);
            for (int d = 0; d < K; d++) one[d] += key[d] * ds;
        }
        dq.add_columns(b, one);
    }
    for (int b = 0; b < k.blocks; b++) {
        const lanes *keys = k.block(b), *values = v.block(b);
        const int first = b * LANES;
        for (int d = 0; d < K; d++) one[d] = two[d] = lanes{};
        for (int i = first; i < T; i++) {
            lanes weight = exponential(dot<WIDTH>(q.row(i), keys, K) - lse[i]);
            if (i < first + LANES - 1) weight = positions(b) <= i ? weight : lanes{};  // keys after the query count for nothing
            const lanes ds = weight * (dot<WIDTH>(dy.row(i), values, K) - delta[i]);
            const float *query = q.row(i), *gradient = dy.row(i);
            for (int d = 0; d < K; d++) {
                one[d] += query[d] * ds;
                two[d] += gradient[d] * weight;
            }
        }
        dk.add_columns(b, one);
        dv.add_columns(b, two);
    }
}

// Causal attention with rotary positions: qkv (R, (H + 2G) K) to y (R, H K). Also the log of each softmax's sum, lse (B, H, T).
template <int WIDTH, class scalar>
void attention(const scalar* qkv, const float* cos, const float* sin, scalar* y, float* lse, int B, int T, int H, int G, int K) {
    const size_t stride = size_t(H + 2 * G) * K;
    const float scale = 1 / std::sqrt(float(K));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int bg = 0; bg < B * G; bg++) {
        const int b = bg / G, g = bg % G;
        Head<WIDTH> q(T, K), k(T, K), v(T, K), out(T, K);
        const scalar* sequence = qkv + size_t(b) * T * stride;
        k.read_turned(sequence + (H + g) * K, stride, cos, sin, 1);
        v.read(sequence + (H + G + g) * K, stride);
        for (int h = g * (H / G); h < (g + 1) * (H / G); h++) {
            q.read_turned(sequence + h * K, stride, cos, sin, scale);
            q.transpose();
            attend<WIDTH>(q, k, v, out, lse + (size_t(b) * H + h) * T);
            out.write(y + size_t(b) * T * H * K + h * K, size_t(H) * K);
        }
    }
}

template <int WIDTH, class scalar>
void attention_backward(
    const scalar* qkv, const float* cos, const float* sin, const scalar* y, const float* lse, const scalar* dy, scalar* dqkv,
    int B, int T, int H, int G, int K) {
    const size_t stride = size_t(H + 2 * G) * K;
    const float scale = 1 / std::sqrt(float(K));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int bg = 0; bg < B * G; bg++) {
        const int b = bg / G, g = bg % G;
        Head<WIDTH> q(T, K), k(T, K), v(T, K), out(T, K), d_out(T, K), dq(T, K), dk(T, K), dv(T, K);
        std::vector<float> delta(T);
        const scalar* sequence = qkv + size_t(b) * T * stride;
        scalar* d_sequence = dqkv + size_t(b) * T * stride;
        k.read_turned(sequence + (H + g) * K, stride, cos, sin, 1);
        v.read(sequence + (H + G + g) * K, stride);
        k.transpose();
        v.transpose();
        for (int h = g * (H / G); h < (g + 1) * (H / G); h++) {
            q.read_turned(sequence + h * K, stride, cos, sin, scale);
            q.transpose();
            out.read(y + size_t(b) * T * H * K + h * K, size_t(H) * K);
            d_out.read(dy + size_t(b) * T * H * K + h * K, size_t(H) * K);
            d_out.transpose();
            for (int t = 0; t < T; t++) {
                const float *y_t = out.row(t), *dy_t = d_out.row(t);
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int d = 0; d < out.width(); d++) sum += y_t[d] * dy_t[d];
                delta[t] = sum;
            }
            std::fill(dq.rows.begin(), dq.rows.end(), 0.f);
            attend_backward<WIDTH>(q, k, v, d_out, lse + (size_t(b) * H + h) * T, delta.data(), dq, dk, dv);
            dq.write_turned_back(d_sequence + h * K, stride, cos, sin, scale);
        }
        dk.write_turned_back(d_sequence + (H + g) * K, stride, cos, sin, 1);
        dv.write(d_sequence + (H + G + g) * K, stride);
    }
}

// `call.template operator()<WIDTH>()` with the head's width known to the compiler where it is a usual one.
template <class Call>
void for_width(int K, Call call) {
    switch (K) {
        case 4: return call.template operator()<4>();
        case 8: return call.template operator()<8>();
        case 16: return call.template operator()<16>();
        case 32: return call.template operator()<32>();
        case 64: return call.template operator()<64>();
        default: return call.template operator()<0>();
    }
}

}  // namespace
