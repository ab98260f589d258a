// Convolution with blocks in bfloat16, NHWC, for the forward pass and the gradient of the input.
//
// Both are y[pixel, lanes] += x[pixel + at, pair] . w[entry, lanes]: an entry is a pair of channels of x at one tap, and weights
// of 16 or 32 channels of y for both. Forward: pairs of inputs, lanes of outputs. Gradient: pairs of outputs, lanes of inputs.
// A tile keeps SEG x L pixels x V vectors in registers; an entry costs V loads of weights and one broadcast a pixel, and
// every broadcast serves V dot products, so that loads stay below the two dot products a cycle.
#include <cmath>

#include "blocks_bf16.h"

extern "C" int64_t campfire_blocks_bf16_built() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

#if defined(__AVX512BF16__)
namespace {

struct Args {
    const int32_t* start;  // [groups + 1]: first entry of each group of lanes
    const int32_t* at;     // [entries]: offset of the pair from the pixel
    const float* value;    // [entries][lanes], pairs
    int64_t lanes, groups, xs, ys;  // xs: pairs, ys: halves from pixel to pixel
    const float* bias;              // [K] or null
    const Half* residual;           // like y, or null
    const Half* y0;
    bool relu, past;
    const char* next;  // what the next tile reads: a little is fetched at every entry, for all at once would wait
    int64_t apiece;    // bytes
};

// A pixel's sums with all that comes after a convolution but the bias, with which they began.
template <int V>
inline void finish(const Args& a, const Vec* sums, Half* y, Vec least) {
    Vec z[V];
    UNROLL for (int v = 0; v < V; v++) z[v] = sums[v];
    if (a.residual)
        UNROLL for (int v = 0; v < V; v++) z[v] += widen(a.residual + (y - a.y0) + v * W);
    UNROLL for (int v = 0; v < V; v++) z[v] = at_least(least, z[v]);
    if constexpr (V == 2) narrow(y, z[0], z[1], a.past);
    else narrow(y, z[0]);
}

template <int V, int L, int SEG>
void tile(const Args& a, const float* const* x, Half* const* y, int64_t g) {
    const int64_t c1 = a.xs * 4, c3 = 3 * c1, c5 = 5 * c1;
    const int64_t from = a.start[g], n = a.start[g + 1] - from;
    for (int64_t h = 0; h < a.lanes; h += V * W) {
        const int64_t lane = g * a.lanes + h;
        Vec acc[SEG][L][V];
        UNROLL for (int v = 0; v < V; v++) {
            const Vec first = a.bias ? load(a.bias + lane + v * W) : Vec{};
            UNROLL for (int s = 0; s < SEG; s++)
                UNROLL for (int p = 0; p < L; p++) acc[s][p][v] = first;
        }
        const float* w = a.value + from * a.lanes + h;
        const int32_t* at = a.at + from;
        const char* next = a.next + from * a.apiece;
        for (int64_t i = 0; i < n; i++, w += a.lanes) {
            const int64_t o = at[i];
            __builtin_prefetch(next, 0, 2), next += a.apiece;
            Vec ww[V];
            UNROLL for (int v = 0; v < V; v++) ww[v] = load(w + v * W);
            UNROLL for (int s = 0; s < SEG; s++) {
                const float* b = x[s] + o;
                UNROLL for (int p = 0; p < L; p++) {
                    const Vec in = splat(pixel(b, p, c1, c3, c5));
                    UNROLL for (int v = 0; v < V; v++) acc[s][p][v] = dot(acc[s][p][v], in, ww[v]);
                }
            }
        }
        const Vec least = splat(a.relu ? 0.0f : -INFINITY);
        UNROLL for (int s = 0; s < SEG; s++)
            UNROLL for (int p = 0; p < L; p++) finish<V>(a, acc[s][p], y[s] + p * a.ys + lane, least);
    }
}

using Tile = void (*)(const Args&, const float* const*, Half* const*, int64_t);
constexpr int LONGEST = 7;  // pixels in a run

template <int V, int SEG>
Tile tile_of(int64_t length) {
    static const Tile table[] = {nullptr,         tile<V, 1, SEG>, tile<V, 2, SEG>, tile<V, 3, SEG>,
                                 tile<V, 4, SEG>, tile<V, 5, SEG>, tile<V, 6, SEG>, tile<V, 7, SEG>};
    return table[length];
}

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
        for (int64_t s = 0; s < runs; s++) {
            shuffle(y[s], a.ys, sums + s * length * K, K, length);
            for (int64_t p = 0; p < length && (a.residual || a.relu); p++) after(a, y[s] + p * a.ys, K);
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
    int64_t most;    // runs that share what is read of the weights
    bool fetch;      // x lies where it was, far from the first cache
    const Ordered* ordered;
};

template <int V>
void all(const Args& a, const Runs& runs, int64_t length, const Walk& walk) {
    constexpr int SEG = V == 1 ? 4 : 2;
    const int64_t n = runs.x.size(), K = a.groups * a.lanes;
    const Tile many = tile_of<V, SEG>(length), one = tile_of<V, 1>(length);
    Args rows = a;
    if (walk.ordered) rows.ys = K, rows.residual = nullptr, rows.relu = false, rows.past = false;
    for (int64_t i = 0; i < n;) {
        const int64_t end = std::min(n, i + (walk.ordered ? SEG : std::max<int64_t>(SEG, walk.most)));
        const int64_t entries = std::max(1, a.start[walk.g1] - a.start[walk.g0]);
        rows.apiece = walk.fetch && end < n ? length * SEG * a.xs * 4 / entries : 0;
        rows.next = (const char*)runs.x[end < n ? end : i] - a.start[walk.g0] * rows.apiece;
        for (int64_t g = walk.g0; g < walk.g1; g++) {
            for (int64_t j = i; j < end;) {
                const int64_t step = j + SEG <= end ? SEG : 1;
                Half* to_rows[SEG];
                for (int s = 0; s < step; s++)
                    to_rows[s] = walk.ordered ? walk.ordered->sums + (j - i + s) * length * K : runs.y[j + s];
                (step == SEG ? many : one)(rows, &runs.x[j], to_rows, g);
                j += step;
            }
        }
        if (walk.ordered) (*walk.ordered)(a, &runs.y[i], end - i, length, K);
        i = end;
    }
}

void runs_of(const Args& a, const Runs& runs, int64_t length, const Walk& walk) {
    if (!runs.x.empty()) (a.lanes % (2 * W) == 0 ? all<2> : all<1>)(a, runs, length, walk);
}

struct Item {  // rows [h0, h1) of image n, and of a flat convolution `wide` pixels from p0 on
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

}  // namespace

// Weights of the forward pass: pairs of entries of k outputs each, [pairs][k][2]; `source`: where a pair's first entry lies.
extern "C" void campfire_blocks_bf16_pairs(float* to, const Half* value, const int32_t* source, int64_t pairs, int64_t k,
                                           int64_t threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (int64_t i = 0; i < pairs; i++)
        for (int64_t h = 0; h < k; h += W) {
            const Half* from = value + source[i] + h;
            store(to + i * k + h, paired(from, from + k));
        }
}

// Weights of the gradient of the input: [blocks][k / 2][lanes][2]; `source` [blocks][lanes]: where a channel's k outputs lie.
extern "C" void campfire_blocks_bf16_turned(float* to, const Half* value, const int32_t* source, int64_t blocks,
                                            int64_t lanes, int64_t k, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t l = 0; l < lanes; l += 16) {
            const int32_t* from = source + b * lanes + l;
            float* out = to + b * lanes * k / 2 + l;
            auto row = [&](int i) { return (const float*)(value + from[i]); };
            int64_t j = 0;
            for (; j + 16 <= k / 2; j += 16) turn16([&](int i) { return row(i) + j; }, out + j * lanes, lanes);
            for (; j < k / 2; j++)
                for (int i = 0; i < 16; i++) std::memcpy(out + j * lanes + i, row(i) + j, 4);
        }
}

// `pixel`: pairs from pixel to pixel of a padded copy of x in rows of `padded` pixels, strip by strip; 0: x is read where it lies.
// `in_order` [C] and `out_order` [K]: channel j of the blocks is channel in_order[j] of x; output j is lane out_order[j]; or null.
extern "C" void campfire_blocks_bf16_conv(const int64_t* sizes, const Half* input, const int32_t* start,
                                          const int32_t* at, const float* value, int64_t lanes,
                                          const int32_t* in_order, const int32_t* out_order, const float* bias,
                                          const Half* residual, int64_t relu, Half* y, int64_t padded, int64_t pixel,
                                          int64_t strip) {
    const Sizes c = *(const Sizes*)sizes;
    const bool flat = c.flat(), copies = pixel != 0;
    const int64_t C = c.C / 2, groups = c.K / lanes, images = flat ? 1 : c.N, height = flat ? 1 : c.rows;
    const float* x = (const float*)input;
    if (!copies) pixel = C;
    const int64_t pixels = flat ? c.N * c.H * c.Wd : c.columns;
    const int64_t rows = flat ? 1 : std::max<int64_t>(2, std::min(c.rows, strip / (padded * pixel * c.step)));
    const int64_t across = flat ? std::max<int64_t>(56, std::min<int64_t>(224, strip / pixel / 14 * 14)) : pixels;
    const int64_t cuts = (pixels + across - 1) / across, strips = (height + rows - 1) / rows;
    const int64_t items = images * strips * cuts, wanted = (2 * c.threads + items - 1) / items;
    const int64_t parts = out_order || items >= 2 * c.threads ? 1 : std::min(groups, wanted);  // of the groups
    const bool past = c.K % 32 == 0 && (uintptr_t)y % 64 == 0 && c.N * c.rows * c.columns * c.K > 2 * LARGE;
    const int64_t most = start[groups] * lanes * 4 > 400000 ? 1 << 20 : 1;  // more than a second cache keeps beside x
    const Args a{start, at, value, lanes, groups, c.step * pixel, c.K * c.apart, bias, residual, y, relu != 0, past, nullptr, 0};
    const Shuffle in(in_order, c.C), out(out_order, c.K);
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)c.threads)
    for (int64_t unit = 0; unit < items * parts; unit++) {
        const int64_t i = unit / parts, part = unit % parts, h0 = i / cuts % strips * rows, p0 = i % cuts * across;
        const Item item{i / (strips * cuts), h0, std::min(height, h0 + rows), p0, std::min(across, pixels - p0)};
        const int64_t length = run_length(item.wide, LONGEST), left = item.wide % length;
        const float* base = x + (item.n * c.H * c.Wd + (h0 * c.Wd + p0) * c.step) * C;
        if (copies) base = copied(c, item, x, in_order ? &in : nullptr, flat ? item.wide : padded, pixel);
        const int64_t row = (copies ? padded : c.Wd) * pixel * c.step;
        static thread_local Runs full, rest;
        full.clear(), rest.clear();
        for (int64_t h = h0; h < item.h1; h++) {
            const float* from = base + (h - h0) * row;
            Half* to = y + ((item.n * c.high + h * c.apart + c.down) * c.wide + p0 * c.apart + c.right) * c.K;
            for (int64_t p = 0; p + length <= item.wide; p += length) full.add(from + p * a.xs, to + p * a.ys);
            if (left) rest.add(from + (item.wide - left) * a.xs, to + (item.wide - left) * a.ys);
        }
        const Ordered ordered{out, out_order ? (Half*)scratch(2, 4 * LONGEST * c.K / 2) : nullptr};
        const Walk walk{part * groups / parts, (part + 1) * groups / parts, most, !copies, out_order ? &ordered : nullptr};
        runs_of(a, full, length, walk);
        runs_of(a, rest, left, walk);
        if (past) fence();
    }
}
#endif
