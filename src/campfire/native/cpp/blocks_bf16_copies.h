// Padded copies of what a strip of outputs reads, for convolutions with blocks in bfloat16.
#pragma once
#include "blocks_bf16.h"

namespace {  // that flavours loaded side by side must not share

struct Item {  // rows [h0, h1) of image n (and those beside it), and of a flat convolution `wide` pixels from p0 on
    int64_t n, h0, h1, p0, wide;
};

// The rows that an item reads, `width` pixels each, with zeros around; channels in the order of the blocks.
const float* copied(const Sizes& c, const Item& item, const float* x, const Shuffle* order, int64_t width, int64_t pixel) {
    const bool flat = c.flat();
    const int64_t high = flat ? 1 : (item.h1 - item.h0 - 1) * c.step + c.reach, C = c.C / 2;
    const int64_t from = item.h0 * c.step - c.before, H = flat ? 1 : c.H, Wd = flat ? item.wide : c.Wd;
    const float* image = x + (flat ? item.p0 : item.n * c.H * c.Wd) * C;
    float* packed = scratch(0, high * width * pixel);
    if (!order) pack_rows(packed, image, H, Wd, C, from, high, c.before, width, pixel);
    for (int64_t i = 0; i < high && order; i++) {
        Half* to = (Half*)(packed + i * width * pixel);
        std::memset(to, 0, width * pixel * sizeof(float));
        if (from + i < 0 || from + i >= H) continue;
        const Half* row = (const Half*)(image + (from + i) * Wd * C);
        (*order)(to + c.before * pixel * 2, pixel * 2, row, c.C, std::min(Wd, width - c.before));
    }
    return packed;
}

// The same of `side` images from n on, for rows that are too narrow to fill a run: [row][phase][column][side], so that one run
// takes a few columns of all of them. Columns that the stride skips lie apart, in phases: pixels of a run stay neighbours.
const float* copied_beside(const Sizes& c, const Item& item, const float* x, const Shuffle* order, int64_t width,
                           int64_t pixel, int64_t side) {
    const int64_t high = (item.h1 - item.h0 - 1) * c.step + c.reach, C = c.C / 2, line = width * side * pixel;
    const int64_t columns = c.step == 1 ? width : (c.Wd + 2 * c.before + c.step - 1) / c.step;
    float* packed = scratch(0, high * line);
    for (int64_t i = 0; i < high; i++) {
        if (i % c.step >= c.reach) continue;  // no tap reads it
        const int64_t h = item.h0 * c.step + i - c.before;
        float* to = packed + i * line;
        for (int64_t at = 0; at < width; at++)
            for (int64_t n = item.n; n < item.n + side; n++, to += pixel) {
                const int64_t w = at % columns * c.step + at / columns - c.before;
                const bool inside = n < c.N && h >= 0 && h < c.H && w >= 0 && w < c.Wd;
                const float* from = x + ((n * c.H + h) * c.Wd + w) * C;
                if (!inside) std::memset(to, 0, C * sizeof(float));
                else if (order) (*order)((Half*)to, c.C, (const Half*)from, c.C, 1);
                else std::memcpy(to, from, C * sizeof(float));
            }
    }
    return packed;
}

}  // namespace
