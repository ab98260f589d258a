// How convolutions with blocks in bfloat16 go over their pixels: strips, runs of pixels in a row, row groups, threads.
//
// What computes a tile of runs is the Engine's, which is made in each thread for runs of one length:
//   LONGEST            pixels in a run: of a row, or of the same few columns of images side by side
//   runs(lanes)        runs in a tile
//   tile_of(lanes, runs, length)
#pragma once
#include <cmath>

#include "blocks_bf16_copies.h"

namespace {  // that flavours loaded side by side must not share

struct Args {
    const int32_t* start;  // [groups + 1]: first entry of each group of lanes
    const int32_t* at;     // [entries]: offset from the pixel
    const float* value;    // [entries][depth][lanes], pairs
    int64_t lanes, groups, depth, xs, ys;  // xs: pairs, ys: halves from pixel to pixel
    const float* bias;                     // [K] or null
    const Half* residual;                  // like y, or null
    const Half* y0;
    bool relu, past;
    int64_t side, images, image;  // beside each other in a run, so many of them there, halves of y from one to the next
    int64_t length;    // pixels in a run
    const char* next;  // what the next tile reads: a little is fetched at every entry, for all at once would wait
    int64_t apiece;    // bytes
};

using Tile = void (*)(const Args&, const float* const* x, Half* const* y, int64_t group);

// A pixel's sums with all that comes after a convolution but the bias, with which they began.
template <int V>
inline void finish(const Args& a, const Vec* sums, Half* y, Vec least) {
    Vec z[V];
    UNROLL for (int v = 0; v < V; v++) z[v] = sums[v];
    if (a.residual)
        UNROLL for (int v = 0; v < V; v++) z[v] += widen(a.residual + (y - a.y0) + v * W);
    UNROLL for (int v = 0; v < V; v++) z[v] = at_least(least, z[v]);
    if constexpr (V % 2 == 0)
        UNROLL for (int v = 0; v < V; v += 2) narrow(y + v * W, z[v], z[v + 1], a.past);
    else narrow(y, z[0]);
}

Vec least_of(const Args& a) { return splat(a.relu ? 0.0f : -INFINITY); }

struct Runs {
    std::vector<const float*> x;
    std::vector<Half*> y;
    void clear() { x.clear(), y.clear(); }
    void add(const float* from, Half* to) { x.push_back(from), y.push_back(to); }
};

// Finished pixels, lanes in the order of the blocks, go to y in the order of the outputs.
struct Ordered {
    const Shuffle& shuffle;
    Half* sums;

    void operator()(const Args& a, Half* const* y, int64_t runs, int64_t length, int64_t K) const {
        for (int64_t s = 0; s < runs; s++)
            for (int64_t n = 0; n < a.images; n++) {
                Half* to = y[s] + n * a.image;
                shuffle(to, a.ys, sums + (s * length + n) * K, a.side * K, length / a.side);
                for (int64_t p = 0; p < length / a.side && (a.residual || a.relu); p++) after(a, to + p * a.ys, K);
            }
    }

    static void after(const Args& a, Half* y, int64_t K) {
        for (int64_t k = 0; k < K; k += W) {
            Vec z = widen(y + k);
            if (a.residual) z += widen(a.residual + (y + k - a.y0));
            if (a.relu) z = at_least(Vec{}, z);
            narrow(y + k, z);
        }
    }
};

// The runs of one item, and how they are gone through.
struct Walk {
    int64_t g0, g1;  // row groups
    int64_t images;  // of those side by side
    int64_t most;    // runs that share what is read of the weights
    bool fetch;      // x lies where it was, far from the first cache
    const Ordered* ordered;
};

constexpr int64_t MOST_RUNS = 4;  // in a tile

template <class Engine>
void runs_of(const Args& a, const Runs& runs, int64_t length, const Walk& walk) {
    if (runs.x.empty()) return;
    const int64_t n = runs.x.size(), K = a.groups * a.lanes, seg = Engine::runs(a.lanes);
    const Tile many = Engine::tile_of(a.lanes, seg, length), one = Engine::tile_of(a.lanes, 1, length);
    Args whole = a;
    whole.length = length, whole.images = walk.images;
    Args rows = whole;
    if (walk.ordered) rows.ys = K, rows.side = rows.images = 1, rows.residual = nullptr, rows.relu = rows.past = false;
    const Engine engine(rows);
    for (int64_t i = 0; i < n;) {
        const int64_t end = std::min(n, i + (walk.ordered ? seg : std::max(seg, walk.most)));
        const int64_t entries = std::max(1, a.start[walk.g1] - a.start[walk.g0]);
        rows.apiece = walk.fetch && end < n ? length * seg * a.xs * 4 / entries : 0;
        rows.next = (const char*)runs.x[end < n ? end : i] - a.start[walk.g0] * rows.apiece;
        for (int64_t g = walk.g0; g < walk.g1; g++) {
            for (int64_t j = i; j < end;) {
                const int64_t step = j + seg <= end ? seg : 1;
                Half* to_rows[MOST_RUNS];
                for (int64_t s = 0; s < step; s++)
                    to_rows[s] = walk.ordered ? walk.ordered->sums + (j - i + s) * length * K : runs.y[j + s];
                (step == seg ? many : one)(rows, &runs.x[j], to_rows, g);
                j += step;
            }
        }
        if (walk.ordered) (*walk.ordered)(whole, &runs.y[i], end - i, length, K);
        i = end;
    }
}

// `pixel`: pairs from pixel to pixel of a padded copy of x in rows of `padded` pixels, strip by strip; 0: x is read where it lies.
// `side` > 1: that many images lie side by side in the copy (see copied_beside).
// `in_order` [C] and `out_order` [K]: channel j of the blocks is channel in_order[j] of x; output j is lane out_order[j]; or null.
template <class Engine>
void convolve(const int64_t* sizes, const Half* input, const int32_t* start, const int32_t* at, const float* value,
              int64_t lanes, int64_t depth, const int32_t* in_order, const int32_t* out_order, const float* bias,
              const Half* residual, int64_t relu, Half* y, int64_t padded, int64_t pixel, int64_t strip, int64_t side) {
    constexpr int64_t TILE = 2 * Engine::LONGEST;  // pixels
    const Sizes c = *(const Sizes*)sizes;
    if (c.N * c.rows * c.columns == 0) return;  // of an image one pixel high or wide
    const bool flat = c.flat(), copies = pixel != 0;
    const int64_t C = c.C / 2, groups = c.K / lanes, images = flat ? 1 : (c.N + side - 1) / side, height = flat ? 1 : c.rows;
    const float* x = (const float*)input;
    if (!copies) pixel = C;
    const int64_t pixels = flat ? c.N * c.H * c.Wd : c.columns;
    const int64_t rows = flat ? 1 : std::max<int64_t>(2, std::min(c.rows, strip / (padded * pixel * side * c.step)));
    const int64_t across = flat ? std::max(4 * TILE, std::min(16 * TILE, strip / pixel / TILE * TILE)) : pixels;
    const int64_t cuts = (pixels + across - 1) / across, strips = (height + rows - 1) / rows;
    const int64_t items = images * strips * cuts, wanted = (2 * c.threads + items - 1) / items;
    const int64_t parts = out_order || items >= 2 * c.threads ? 1 : std::min(groups, wanted);  // of the groups
    const bool past = c.K % 32 == 0 && (uintptr_t)y % 64 == 0 && c.N * c.rows * c.columns * c.K > 2 * LARGE;
    const int64_t bytes = start[groups] * depth * lanes * 4;
    const int64_t most = bytes > 400000 ? 1 << 20 : 1;  // more than a second cache keeps beside x
    const int64_t xs = side > 1 ? pixel : c.step * pixel, image = c.high * c.wide * c.K;
    const Args a{start, at, value, lanes, groups, depth, xs, c.K * c.apart, bias, residual, y, relu != 0, past, side,
                 1, image, 0, nullptr, 0};
    const Shuffle in(in_order, c.C), out(out_order, c.K);
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)c.threads)
    for (int64_t unit = 0; unit < items * parts; unit++) {
        const int64_t i = unit / parts, part = unit % parts, h0 = i / cuts % strips * rows, p0 = i % cuts * across;
        const Item item{i / (strips * cuts) * side, h0, std::min(height, h0 + rows), p0, std::min(across, pixels - p0)};
        const int64_t run = run_length(item.wide, Engine::LONGEST / side), left = item.wide % run;  // columns
        const float* base = x + (item.n * c.H * c.Wd + (h0 * c.Wd + p0) * c.step) * C;
        const Shuffle* order = in_order ? &in : nullptr;
        if (side > 1) base = copied_beside(c, item, x, order, padded, pixel, side);
        else if (copies) base = copied(c, item, x, order, flat ? item.wide : padded, pixel);
        const int64_t row = (copies ? padded * side : c.Wd) * pixel * c.step;
        static thread_local Runs full, rest;
        full.clear(), rest.clear();
        for (int64_t h = h0; h < item.h1; h++) {
            const float* from = base + (h - h0) * row;
            Half* to = y + ((item.n * c.high + h * c.apart + c.down) * c.wide + p0 * c.apart + c.right) * c.K;
            int64_t p = 0;
            for (; p + run <= item.wide; p += run) full.add(from + p * side * a.xs, to + p * a.ys);
            if (left) rest.add(from + p * side * a.xs, to + p * a.ys);
        }
        const Ordered ordered{out, out_order ? (Half*)scratch(2, MOST_RUNS * Engine::LONGEST * c.K / 2) : nullptr};
        const Walk walk{part * groups / parts, (part + 1) * groups / parts, std::min(side, c.N - item.n), most, !copies,
                        out_order ? &ordered : nullptr};
        runs_of<Engine>(a, full, run * side, walk);
        runs_of<Engine>(a, rest, left * side, walk);
        if (past) fence();
    }
}

}  // namespace
