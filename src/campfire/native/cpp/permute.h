// Channels of NHWC pixels in another order. 16 pixels are turned over, rows are taken from anywhere, and turned back: that is
// a quarter of what moving floats one by one costs.
#pragma once
#include <algorithm>

#include "transpose.h"

// `n` <= 16 pixels as rows between[channel][16]; what stands beyond them repeats the last.
static inline void to_rows(const float* from, int64_t pixel, int64_t n, int64_t channels, float* between) {
    for (int64_t j = 0; j < channels; j += 16)
        turn16([=](int i) { return from + std::min<int64_t>(i, n - 1) * pixel + j; }, between + j * 16, 16);
}

// to[p][j] = from[p][order[j]] for j < channels, from pixels of `all` channels, both numbers multiples of 16.
// `between`: all + 1 rows of 16.
static inline void permute(const float* from, int64_t from_pixel, int64_t all, float* to, int64_t to_pixel, int64_t pixels,
                           const int32_t* order, int64_t channels, float* between) {
    float* nowhere = between + all * 16;
    for (int64_t p = 0; p < pixels; p += 16, from += 16 * from_pixel, to += 16 * to_pixel) {
        const int64_t n = std::min<int64_t>(16, pixels - p);
        to_rows(from, from_pixel, n, all, between);
        for (int64_t j = 0; j < channels; j += 16)
            turn16([=](int i) { return between + order[j + i] * 16; },
                   [=](int i) { return i < n ? to + i * to_pixel + j : nowhere; });
    }
}
