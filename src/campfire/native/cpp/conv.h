// A convolution in NHWC (groups 1, dilation 1): its sizes, and the strips of padded rows that kernels walk.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "permute.h"
#include "unroll.h"

struct Conv {  // int64 each, as the Python side passes them
    int64_t N, H, Wd, C, K, R, S, stride, pad, Ho, Wo, threads;

    // A 1x1 convolution whose pixels, of all images, are one long row.
    bool flat() const { return R == 1 && S == 1 && stride == 1 && pad == 0; }
};

// Rows [from, from + rows) of one image [H][width][C] into dst, with `left` zero pixels before and zeros up to `padded`
// pixels after each; rows outside the image are zero. A pixel takes `pixel` >= C floats of dst: where C is a power of two its
// neighbours would share a few sets of the first cache. `order` permutes channels, by way of `between` (see
// permute).
static inline void pack_rows(float* dst, const float* image, int64_t H, int64_t width, int64_t C, int64_t from,
                             int64_t rows, int64_t left, int64_t padded, int64_t pixel,
                             const Order& order = {}, float* between = nullptr) {
    for (int64_t i = 0; i < rows; i++, dst += padded * pixel) {
        const int64_t h = from + i, copied = std::min(width, padded - left);
        if (h < 0 || h >= H) {
            std::memset(dst, 0, sizeof(float) * padded * pixel);
            continue;
        }
        float* row = dst + left * pixel;
        const float* src = image + h * width * C;
        std::memset(dst, 0, sizeof(float) * left * pixel);
        if (order.index) permute(src, C, C, row, pixel, copied, order, 0, C, between);
        else
            for (int64_t p = 0; p < copied; p++) std::memcpy(row + p * pixel, src + p * C, sizeof(float) * C);
        std::memset(row + copied * pixel, 0, sizeof(float) * (padded - left - copied) * pixel);
    }
}

// Pixel p of a run, pixels c1 bytes apart (c3 and c5: three and five times that): addresses the processor forms by itself.
static inline const float& pixel(const float* first, int p, int64_t c1, int64_t c3, int64_t c5) {
    const char* b = (const char*)first;
    switch (p) {
        case 0: return *(const float*)b;
        case 1: return *(const float*)(b + c1);
        case 2: return *(const float*)(b + 2 * c1);
        case 3: return *(const float*)(b + c3);
        case 4: return *(const float*)(b + 4 * c1);
        case 5: return *(const float*)(b + c5);
        default: return *(const float*)(b + 2 * c3);
    }
}

constexpr int64_t LARGE = 1 << 20;  // floats: more than a second cache keeps

// Runs of at most `most` pixels, cut evenly: 8 pixels are 4 + 4 and not 7 + 1.
static inline int64_t run_length(int64_t pixels, int64_t most) {
    int64_t runs = (pixels + most - 1) / most;
    return (pixels + runs - 1) / runs;
}

// Rows of an item of work, at most `most`: of a few items every thread gets as many.
static inline int64_t rows_of_item(const Conv& c, int64_t height, int64_t most) {
    int64_t chunks = (height + most - 1) / most;
    if (c.N * chunks < 4 * c.threads) chunks = ((c.N * chunks + c.threads - 1) / c.threads * c.threads + c.N - 1) / c.N;
    return (height + chunks - 1) / chunks;
}

// Memory aligned to a cache line, kept by its thread from call to call.
static inline float* scratch(int slot, size_t floats) {
    static thread_local std::vector<float> memory[4];
    auto& m = memory[slot];
    if (m.size() < floats + 16) m.resize(floats + 16);
    return (float*)(((uintptr_t)m.data() + 63) & ~(uintptr_t)63);
}
