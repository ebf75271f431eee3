// What lies between the matrix products of a training step, on a CPU: each function is one pass over its rows.
//
// torch multiplies matrices as fast as they can be; on models of 10^4 to 10^7 parameters the rest takes longer, mostly attention,
// whose heads are narrow. Tensors are row-major. `scalar` is what the matrix products read and write, float or bfloat16; the
// residual stream, all sums and all arithmetic are float32. Shape suffixes are those of models/transformer.py, with R = B*T rows.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace {

int threads = 1;  // of each kernel

struct bf16 {
    uint16_t bits;
};

inline float load(float x) { return x; }
inline float load(bf16 x) { return __builtin_bit_cast(float, uint32_t(x.bits) << 16); }
inline void store(float& to, float x) { to = x; }
inline void store(bf16& to, float x) {  // to nearest, ties to even; a NaN, as arithmetic makes them, stays one
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    to.bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

// exp(x) = 2^n 2^f with n whole and |f| <= 1/2; 2^f by its Taylor polynomial (relative error 2e-7). It works on floats and on
// vectors of them. Below -87 the result is 2^-126 and not 0; NaN stays NaN.
template <class F, class I>
inline F exponential(F x, F lowest) {
    x = x < lowest ? lowest : x;
    const F scaled = x * 1.44269504f;
    const F shifted = scaled + 12582912.f;  // 1.5 * 2^23: the whole part is now in the last bits
    const F f = (scaled - (shifted - 12582912.f)) * 0.693147181f;
    F power = f * (1.f / 5040) + (1.f / 720);
    power = power * f + (1.f / 120);
    power = power * f + (1.f / 24);
    power = power * f + (1.f / 6);
    power = power * f + 0.5f;
    power = power * f + 1.f;
    power = power * f + 1.f;
    return __builtin_bit_cast(F, __builtin_bit_cast(I, power) + (__builtin_bit_cast(I, shifted) << 23));
}
// Above 60 it stays e^60, for 1 / (1 + e^60) is nothing to a sum in fp32. A compiler may work out what follows for the bound
// itself, and in all lanes: with e^88, quotients would be below 2^-126, and such a division takes tens of times as long.
inline float exponential(float x) { return exponential<float, int32_t>(std::min(x, 60.f), -87.f); }

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
        for (int b = 0; b < blocks; b++)
            for (int l = 0; l < LANES; l++) {
                const int t = b * LANES + l;
                for (int k = 0; k < width(); k++) block(b)[k][l] = t < T ? row(t)[k] : 0.f;
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
                delta[t] = 0;
                for (int d = 0; d < K; d++) delta[t] += out.row(t)[d] * d_out.row(t)[d];
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

// x_new = x + branch (where there is one), and y = gain * x_new / rms(x_new); 1/rms is kept for the way back.
template <class scalar>
void add_norm(const float* x, const scalar* branch, float* x_new, const float* gain, scalar* y, float* inverse_rms, int R, int D, float eps) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int r = 0; r < R; r++) {
        const float* in = x + size_t(r) * D;
        scalar* out = y + size_t(r) * D;
        if (branch) {
            const scalar* added = branch + size_t(r) * D;
            float* sum = x_new + size_t(r) * D;
#pragma GCC ivdep
            for (int d = 0; d < D; d++) sum[d] = in[d] + load(added[d]);
            in = sum;
        }
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int d = 0; d < D; d++) squares += in[d] * in[d];
        const float inverse = 1 / std::sqrt(squares / D + eps);
        inverse_rms[r] = inverse;
#pragma GCC ivdep
        for (int d = 0; d < D; d++) store(out[d], in[d] * inverse * gain[d]);
    }
}

// Adds to dx, the residual stream's gradient, what comes through the norm, and to d_gain; dx also as a scalar, for the products.
template <class scalar>
void norm_backward(
    const scalar* dy, const float* x, const float* gain, const float* inverse_rms, float* dx, scalar* dx_scalar, float* d_gain,
    int R, int D) {
    std::vector<float> through(D);
    for (int r = 0; r < R; r++) {  // in one thread: the sum over rows has one order
        const scalar* d_out = dy + size_t(r) * D;
        const float* in = x + size_t(r) * D;
        float* d_in = dx + size_t(r) * D;
        scalar* d_in_scalar = dx_scalar + size_t(r) * D;
        const float inverse = inverse_rms[r];
        float projection = 0;
#pragma omp simd reduction(+ : projection)
        for (int d = 0; d < D; d++) {
            const float incoming = load(d_out[d]), whitened = in[d] * inverse;
            d_gain[d] += incoming * whitened;
            through[d] = incoming * gain[d];
            projection += through[d] * whitened;
        }
        projection *= inverse / D;
#pragma GCC ivdep
        for (int d = 0; d < D; d++) {
            d_in[d] += inverse * (through[d] - in[d] * projection);
            store(d_in_scalar[d], d_in[d]);
        }
    }
}

// hidden = silu(gate) * up, from rows of gate and up, F each.
template <class scalar>
void swiglu(const scalar* gate_up, scalar* hidden, int R, int F) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int r = 0; r < R; r++) {
        const scalar* gate = gate_up + size_t(r) * 2 * F;
        const scalar* up = gate + F;
        scalar* out = hidden + size_t(r) * F;
#pragma GCC ivdep
        for (int f = 0; f < F; f++) {
            const float g = load(gate[f]);
            store(out[f], g / (1 + exponential(-g)) * load(up[f]));
        }
    }
}

template <class scalar>
void swiglu_backward(const scalar* gate_up, const scalar* d_hidden, scalar* d_gate_up, int R, int F) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int r = 0; r < R; r++) {
        const scalar* gate = gate_up + size_t(r) * 2 * F;
        const scalar* up = gate + F;
        const scalar* d_out = d_hidden + size_t(r) * F;
        scalar* d_gate = d_gate_up + size_t(r) * 2 * F;
        scalar* d_up = d_gate + F;
#pragma GCC ivdep
        for (int f = 0; f < F; f++) {
            const float g = load(gate[f]), d = load(d_out[f]), sigmoid = 1 / (1 + exponential(-g));
            store(d_up[f], d * g * sigmoid);
            store(d_gate[f], d * load(up[f]) * sigmoid * (1 + g * (1 - sigmoid)));
        }
    }
}

// The loss of each row, in nats; with `scale`, the logits become their gradient times it.
template <class scalar>
void cross_entropy(scalar* logits, const int64_t* targets, float* losses, float scale, int R, int V) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int r = 0; r < R; r++) {
        scalar* row = logits + size_t(r) * V;
        std::vector<float> powers(V);
        float highest = -INFINITY, sum = 0;
#pragma omp simd reduction(max : highest)
        for (int v = 0; v < V; v++) highest = std::max(highest, load(row[v]));
#pragma omp simd reduction(+ : sum)
        for (int v = 0; v < V; v++) sum += powers[v] = exponential(load(row[v]) - highest);
        const int64_t target = targets[r];
        losses[r] = std::log(sum) + highest - load(row[target]);
        if (scale == 0) continue;
#pragma GCC ivdep
        for (int v = 0; v < V; v++) store(row[v], powers[v] * (scale / sum));
        store(row[target], (powers[target] / sum - 1) * scale);
    }
}

// dot(g, g), in double precision.
template <class scalar>
double sum_of_squares(const scalar* g, int64_t n) {
    double total = 0;
    for (int64_t start = 0; start < n; start += 4096) {
        float part = 0;
        const int64_t end = std::min(n, start + 4096);
#pragma omp simd reduction(+ : part)
        for (int64_t i = start; i < end; i++) part += load(g[i]) * load(g[i]);
        total += part;
    }
    return total;
}

// AdamW (arXiv 1711.05101, as in torch.optim): the gradient is multiplied by `clip` first; the weight also as a scalar.
template <class scalar>
void adamw(
    float* weight, float* mean, float* square, const scalar* gradient, scalar* weight_scalar,
    int64_t n, float clip, float lr, float beta1, float beta2, float eps, float decay, float correction1, float correction2) {
    const float keep = 1 - lr * decay, rate = lr / correction1, root = 1 / std::sqrt(correction2);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
        const float g = load(gradient[i]) * clip;
        const float m = mean[i] + (1 - beta1) * (g - mean[i]), s = beta2 * square[i] + (1 - beta2) * g * g;
        const float updated = weight[i] * keep - rate * m / (std::sqrt(s) * root + eps);
        mean[i] = m, square[i] = s, weight[i] = updated;
        store(weight_scalar[i], updated);
    }
}

}  // namespace

extern "C" {

void set_threads(int count) { threads = count; }

void embed(const float* table, const int64_t* ids, float* x, int R, int D) {
    for (int r = 0; r < R; r++) std::copy_n(table + ids[r] * D, D, x + size_t(r) * D);
}

void embed_backward(const float* dx, const int64_t* ids, float* d_table, int R, int D) {
    for (int r = 0; r < R; r++)
        for (int d = 0; d < D; d++) d_table[ids[r] * D + d] += dx[size_t(r) * D + d];
}

#define FOR_SCALAR(scalar, name)                                                                                                   \
    void attention_##name(                                                                                                         \
        const scalar* qkv, const float* cos, const float* sin, scalar* y, float* lse, int B, int T, int H, int G, int K) {         \
        for_width(K, [&]<int WIDTH>() { attention<WIDTH>(qkv, cos, sin, y, lse, B, T, H, G, K); });                                \
    }                                                                                                                              \
    void attention_backward_##name(                                                                                                \
        const scalar* qkv, const float* cos, const float* sin, const scalar* y, const float* lse, const scalar* dy, scalar* dqkv,  \
        int B, int T, int H, int G, int K) {                                                                                       \
        for_width(K, [&]<int WIDTH>() { attention_backward<WIDTH>(qkv, cos, sin, y, lse, dy, dqkv, B, T, H, G, K); });             \
    }                                                                                                                              \
    void add_norm_##name(                                                                                                          \
        const float* x, const scalar* branch, float* x_new, const float* gain, scalar* y, float* inverse_rms, int R, int D,        \
        float eps) {                                                                                                               \
        add_norm(x, branch, x_new, gain, y, inverse_rms, R, D, eps);                                                               \
    }                                                                                                                              \
    void norm_backward_##name(                                                                                                     \
        const scalar* dy, const float* x, const float* gain, const float* inverse_rms, float* dx, scalar* dx_scalar,               \
        float* d_gain, int R, int D) {                                                                                             \
        norm_backward(dy, x, gain, inverse_rms, dx, dx_scalar, d_gain, R, D);                                                      \
    }                                                                                                                              \
    void swiglu_##name(const scalar* gate_up, scalar* hidden, int R, int F) { swiglu(gate_up, hidden, R, F); }                     \
    void swiglu_backward_##name(const scalar* gate_up, const scalar* d_hidden, scalar* d_gate_up, int R, int F) {                  \
        swiglu_backward(gate_up, d_hidden, d_gate_up, R, F);                                                                       \
    }                                                                                                                              \
    void cross_entropy_##name(scalar* logits, const int64_t* targets, float* losses, float scale, int R, int V) {                  \
        cross_entropy(logits, targets, losses, scale, R, V);                                                                       \
    }                                                                                                                              \
    double sum_of_squares_##name(const scalar* g, int64_t n) { return sum_of_squares(g, n); }                                      \
    void adamw_##name(                                                                                                             \
        float* weight, float* mean, float* square, const scalar* gradient, scalar* weight_scalar, int64_t n, float clip, float lr, \
        float beta1, float beta2, float eps, float decay, float correction1, float correction2) {                                  \
        adamw(weight, mean, square, gradient, weight_scalar, n, clip, lr, beta1, beta2, eps, decay, correction1, correction2);     \
    }

FOR_SCALAR(float, fp32)
FOR_SCALAR(bf16, bf16)
}
