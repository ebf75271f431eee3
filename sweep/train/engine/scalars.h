// What all kernels share: how many threads, the types that the matrix products read and write, and the exponential.

#pragma once

#include <algorithm>
#include <cstdint>

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

}  // namespace
