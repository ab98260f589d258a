// What comes after the sums of a forward pass: bias, residual, ReLU, the order of y's channels, and the way to memory.
#pragma once
#include "conv.h"
#include "moves.h"
#include "transpose.h"

struct After {
    const float* bias;      // [K] or null
    const float* residual;  // like y, or null
    const float* y;         // where y begins
    bool relu, past;        // past the caches
    const int32_t* order;   // [K]: row j of the blocks is output order[j]; null: they are in order
    const int32_t* moves;   // its inverse as a table of moves.h; null: pixels are turned over

    bool plain() const { return !bias && !residual && !relu; }
};

// V vectors of a pixel's channels, from `row` on. Not inlined: the registers of the loop before it hold the sums, and none may
// be spilled for what happens here.
template <int V>
__attribute__((noinline)) static void finish(const After& a, const float* sums, float* y, int64_t row) {
    UNROLL for (int v = 0; v < V; v++) {
        Vec z = load(sums + v * W);
        const int64_t k = row + v * W;
        if (a.bias) z += load(a.bias + k);
        if (a.residual) z += load(a.residual + (y + k - a.y));
        if (a.relu) z = z < Vec{} ? Vec{} : z;
        a.past ? stream(y + k, z) : store(y + k, z);
    }
}

// Up to 16 pixels `from`, rows of the blocks `apart` floats apart, to y in its own order. `rows`: K rows of 16 floats.
static void restore(const After& a, const float* from, int64_t apart, int64_t n, int64_t K, float* const* y, float* rows) {
    alignas(64) float block[16 * 16];
    for (int64_t j = 0; j < K; j += 16)
        turn16([=](int i) { return from + std::min<int64_t>(i, n - 1) * apart + j; },
               [&](int i) { return rows + a.order[j + i] * 16; });
    for (int64_t k = 0; k < K; k += 16) {
        turn16([=](int i) { return rows + (k + i) * 16; }, block, 16);
        for (int64_t p = 0; p < n; p++) {
            float *sums = block + p * 16, *to = y[p] + k;
            if (!a.plain()) finish<16 / W>(a, sums, y[p], k);
            else
                UNROLL for (int i = 0; i < 16; i += W) a.past ? stream(to + i, load(sums + i)) : store(to + i, load(sums + i));
        }
    }
}

// The same by moves, for S runs of L pixels.
template <int S, int L>
static void restore(const After& a, const float* const* from, int64_t apart, int64_t K, float* const* y) {
    for (int64_t v = 0; v < K / 16; v++) {
        Sixteen<S, L> z;
        moved<S, L>(a.moves, v, from, apart, z);
        UNROLL for (int h = 0; h < 16 / W; h++) {
            const int64_t k = v * 16 + h * W;
            const Vec bias = a.bias ? load(a.bias + k) : Vec{};
            UNROLL for (int i = 0; i < S * L; i++) {
                float* to = y[i / L] + i % L * K + k;
                Vec sum = z[i / L][i % L][h] + bias;
                if (a.residual) sum += load(a.residual + (to - a.y));
                if (a.relu) sum = sum < Vec{} ? Vec{} : sum;
                a.past ? stream(to, sum) : store(to, sum);
            }
        }
    }
}

template <int S>
static void restore(const After& a, int64_t length, const float* const* from, int64_t apart, int64_t K, float* const* y) {
    static void (*const table[])(const After&, const float* const*, int64_t, int64_t, float* const*) = {
        nullptr, restore<S, 1>, restore<S, 2>, restore<S, 3>, restore<S, 4>, restore<S, 5>, restore<S, 6>, restore<S, 7>};
    table[length](a, from, apart, K, y);
}

// Where the sums of some runs of pixels stand until all row groups are through, if the blocks' order is not that of y.
struct Aside {
    const After& after;
    int64_t length, K, apart;
    float *sums = nullptr, *rows = nullptr;

    Aside(const After& after, int64_t runs, int64_t length, int64_t K) : after(after), length(length), K(K) {
        apart = K + 16;  // not a power of two
        if (after.order) sums = scratch(1, runs * length * apart), rows = scratch(2, K * 16);
    }

    float* run(int64_t s) const { return sums + s * length * apart; }

    void put(int64_t runs, float* const* y) const {
        for (int64_t s = 0; s < runs && after.moves; s += 2) {
            const float* const from[] = {run(s), run(s + 1)};
            (s + 1 < runs ? restore<2> : restore<1>)(after, length, from, apart, K, y + s);
        }
        if (after.moves) return;
        float* to[16];
        const int64_t pixels = runs * length;
        for (int64_t p = 0; p < pixels; p++) {
            to[p % 16] = y[p / length] + p % length * K;
            if (p % 16 == 15 || p + 1 == pixels) restore(after, sums + p / 16 * 16 * apart, apart, p % 16 + 1, K, to, rows);
        }
    }
};
