// Channels of NHWC pixels in another order. 16 pixels are turned over, rows are taken from anywhere, and turned back: that is
// a quarter of what moving floats one by one costs.
#pragma once
#include <algorithm>

#include "moves.h"
#include "transpose.h"

struct Order {  // place j takes channel index[j]; null: as they come
    const int32_t *index, *moves;  // moves: a table that says the same (moves.h), or null
};

// `n` <= 16 pixels as rows between[channel][16]; what stands beyond them repeats the last.
static inline void to_rows(const float* from, int64_t pixel, int64_t n, int64_t channels, float* between) {
    for (int64_t j = 0; j < channels; j += 16)
        turn16([=](int i) { return from + std::min<int64_t>(i, n - 1) * pixel + j; }, between + j * 16, 16);
}

// to[p][j] = from[p][order[j]] for j0 <= j < j1, from pixels of `all` channels, all numbers multiples of 16.
// `between`: all + 1 rows of 16.
static inline void permute(const float* from, int64_t from_pixel, int64_t all, float* to, int64_t to_pixel, int64_t pixels,
                           const Order& order, int64_t j0, int64_t j1, float* between) {
    if (order.moves) return move(order.moves, from, from_pixel, to, to_pixel, pixels, j0 / 16, j1 / 16);
    float* nowhere = between + all * 16;
    for (int64_t p = 0; p < pixels; p += 16, from += 16 * from_pixel, to += 16 * to_pixel) {
        const int64_t n = std::min<int64_t>(16, pixels - p);
        to_rows(from, from_pixel, n, all, between);
        for (int64_t j = j0; j < j1; j += 16)
            turn16([=](int i) { return between + order.index[j + i] * 16; },
                   [=](int i) { return i < n ? to + i * to_pixel + j : nowhere; });
    }
}
