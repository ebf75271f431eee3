// What lies between the matrix products of a training step, on a CPU: each function is one pass over its rows.
//
// torch multiplies matrices as fast as they can be; on models of 10^4 to 10^7 parameters the rest takes longer, mostly attention,
// whose heads are narrow. Tensors are row-major. `scalar` is what the matrix products read and write, float or bfloat16; the
// residual stream, all sums and all arithmetic are float32. Shape suffixes are those of models/transformer.py, with R = B*T rows.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "attention.h"
#include "scalars.h"

namespace {

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
int vector_lanes() { return LANES; }

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
