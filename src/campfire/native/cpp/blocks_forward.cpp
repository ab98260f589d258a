// Forward convolution with blocks of output rows, NHWC: y[pixel, rows] += x[pixel, channel] * w[entry, rows].
//
// An entry is one (input channel, tap) of a block of k rows: k weights side by side, and the place of its input relative
// to a pixel. A tile keeps SEG x L pixels x V vectors of rows in registers; per entry it loads V weight vectors and
// broadcasts one input a pixel, so that loads stay below the two FMAs a cycle.
#include "conv.h"
#include "transpose.h"

namespace {

struct Args {
    const int32_t* start;  // [groups + 1]: first entry of every row group
    const int32_t* at;     // [entries]: offset of the input from the pixel
    const float* value;    // [entries][k]
    int64_t k;
    int64_t xs, ys;  // floats from pixel to pixel
    const float* bias;      // [K] or null
    const float* residual;  // like y, or null
    const float* y0;        // where y begins
    bool relu, past;        // past the caches
    bool plain;             // nothing comes after
    const int32_t* order;   // [K]: row j of the blocks is output order[j]; null: they are in order
};

// A tile's sums [V vectors of a pixel] go to y with everything that comes after a convolution. Not inlined: the registers of the
// loop before it hold the sums, and none may be spilled for what happens here.
template <int V>
__attribute__((noinline)) void finish(const Args& a, const float* sums, float* y, int64_t row) {
    UNROLL for (int v = 0; v < V; v++) {
        Vec z = load(sums + v * W);
        const int64_t k = row + v * W;
        if (a.bias) z += load(a.bias + k);
        if (a.residual) z += load(a.residual + (y + k - a.y0));
        if (a.relu) z = z < Vec{} ? Vec{} : z;
        a.past ? stream(y + k, z) : store(y + k, z);
    }
}

template <int V, int L, int SEG>
void tile(const Args& a, const float* const* x, float* const* y, int64_t g) {
    const int64_t c1 = a.xs * 4, c3 = 3 * c1, c5 = 5 * c1;
    const int64_t from = a.start[g], n = a.start[g + 1] - from;
    for (int64_t h = 0; h < a.k; h += V * W) {
        Vec acc[SEG][L][V];
        UNROLL for (int s = 0; s < SEG; s++)
            UNROLL for (int p = 0; p < L; p++)
                UNROLL for (int v = 0; v < V; v++) acc[s][p][v] = Vec{};
        const float* w = a.value + from * a.k + h;
        const int32_t* at = a.at + from;
        for (int64_t i = 0; i < n; i++, w += a.k) {
            int64_t o = at[i];
            Vec ww[V];
            UNROLL for (int v = 0; v < V; v++) ww[v] = load(w + v * W);
            UNROLL for (int s = 0; s < SEG; s++) {
                const float* b = x[s] + o;
                UNROLL for (int p = 0; p < L; p++) {
                    Vec in = splat(pixel(b, p, c1, c3, c5));
                    UNROLL for (int v = 0; v < V; v++) acc[s][p][v] += in * ww[v];
                }
            }
        }
        if (a.plain) {
            UNROLL for (int s = 0; s < SEG; s++)
                UNROLL for (int p = 0; p < L; p++)
                    UNROLL for (int v = 0; v < V; v++) {
                        float* to = y[s] + p * a.ys + g * a.k + h + v * W;
                        a.past ? stream(to, acc[s][p][v]) : store(to, acc[s][p][v]);
                    }
            continue;
        }
        alignas(64) float sums[SEG][L][V * W];
        UNROLL for (int s = 0; s < SEG; s++)
            UNROLL for (int p = 0; p < L; p++)
                UNROLL for (int v = 0; v < V; v++) store(sums[s][p] + v * W, acc[s][p][v]);
        for (int s = 0; s < SEG; s++)
            for (int p = 0; p < L; p++) finish<V>(a, sums[s][p], y[s] + p * a.ys, g * a.k + h);
    }
}

using Tile = void (*)(const Args&, const float* const*, float* const*, int64_t);
constexpr int LONGEST = W == 16 ? 7 : 3;  // pixels in a run

template <int V, int SEG>
Tile tile_of(int64_t length) {
    static const Tile table[] = {nullptr, tile<V, 1, SEG>, tile<V, 2, SEG>, tile<V, 3, SEG>,
#if defined(__AVX512F__)
                                 tile<V, 4, SEG>, tile<V, 5, SEG>, tile<V, 6, SEG>, tile<V, 7, SEG>
#endif
    };
    return table[length];
}

// The runs of one item, the equally long ones two by two.
struct Runs {
    std::vector<const float*> x;
    std::vector<float*> y;
    void clear() { x.clear(), y.clear(); }
    void add(const float* from, float* to) { x.push_back(from), y.push_back(to); }
};

// Where the sums of some runs stand until all row groups are through, if the order of the blocks is not that of y.
struct Aside {
    Args raw;  // as if nothing came after
    float* sums;
    int64_t length, K;

    Aside(const Args& a, int64_t length, int64_t K, int64_t runs) : raw(a), length(length), K(K) {
        raw.ys = K + 16, raw.plain = true, raw.past = false;  // not a power of two
        sums = scratch(1, runs * length * raw.ys);
    }

    // The next n <= 16 pixels in order, and all that comes after.
    void restore(const Args& a, int64_t first, int64_t n, float* const* y) const {
        const float* from = sums + first * raw.ys;
        float* rows = scratch(2, K * 16);
        alignas(64) float block[16 * 16];
        for (int64_t j = 0; j < K; j += 16)
            turn16([=](int i) { return from + std::min<int64_t>(i, n - 1) * raw.ys + j; },
                   [&](int i) { return rows + a.order[j + i] * 16; });
        for (int64_t k = 0; k < K; k += 16) {
            turn16([=](int i) { return rows + (k + i) * 16; }, block, 16);
            for (int64_t p = 0; p < n; p++) finish<16 / W>(a, block + p * 16, y[p], k);
        }
    }

    void restore(const Args& a, int64_t runs, float* const* y) const {
        float* to[16];
        for (int64_t p = 0; p < runs * length; p++) {
            to[p % 16] = y[p / length] + p % length * a.ys;
            if (p % 16 == 15 || p + 1 == runs * length) restore(a, p / 16 * 16, p % 16 + 1, to);
        }
    }
};

template <int V>
void all(const Args& a, const Runs& runs, int64_t length, int64_t groups, int64_t C) {
    constexpr int SEG = V == 1 ? 4 : 2;
    const int64_t n = runs.x.size();
    const Aside aside(a, length, a.ys, SEG);
    float* sums[SEG];
    for (int s = 0; s < SEG; s++) sums[s] = aside.sums + s * length * aside.raw.ys;
    Tile many = tile_of<V, SEG>(length), one = tile_of<V, 1>(length);
    for (int64_t i = 0; i < n;) {
        const int64_t step = i + SEG <= n ? SEG : 1, next = i + step, then = std::min(n, next + SEG);
        for (int64_t g = 0; g < groups; g++) {
            const int64_t from = g * C / groups, to = (g + 1) * C / groups;
            for (int64_t s = next; s < then; s++)  // of the next tile, whose lines lie too far apart to be foreseen
                for (int64_t p = 0; p < length; p++)
                    for (int64_t c = from; c < to; c += 16) ahead(runs.x[s] + p * a.xs + c);
            (step == SEG ? many : one)(a.order ? aside.raw : a, &runs.x[i], a.order ? sums : &runs.y[i], g);
        }
        if (a.order) aside.restore(a, step, &runs.y[i]);
        i += step;
    }
}

void runs_of(const Args& a, const Runs& full, int64_t length, const Runs& rest, int64_t left, int64_t groups, int64_t C) {
    auto go = a.k % (2 * W) == 0 ? all<2> : all<1>;
    if (!full.x.empty()) go(a, full, length, groups, C);
    if (!rest.x.empty()) go(a, rest, left, groups, C);
}

}  // namespace

// `pixel`: floats from pixel to pixel of a padded copy of x, strip by strip; 0: x is read where it lies.
extern "C" void campfire_blocks_forward(const int64_t* sizes, const float* x, const int32_t* start, const int32_t* at,
                                        const float* value, int64_t k, const int32_t* order, const float* bias,
                                        const float* residual, int64_t relu, float* y, int64_t pixel, int64_t strip) {
    const Conv c = *(const Conv*)sizes;
    const bool flat = c.flat(), copied = pixel != 0;
    if (!copied) pixel = c.C;
    const int64_t pixels = flat ? c.N * c.H * c.Wd : c.Wo, height = flat ? 1 : c.Ho, images = flat ? 1 : c.N;
    const int64_t padded = c.Wd + 2 * c.pad, groups = c.K / k;
    const int64_t rows = flat ? 1 : std::max<int64_t>(2, std::min<int64_t>(c.Ho, strip / (padded * pixel * c.stride)));
    const int64_t across = flat ? std::max<int64_t>(28, std::min<int64_t>(224, strip / pixel / 14 * 14)) : pixels;
    const int64_t cuts = (pixels + across - 1) / across, chunks = (height + rows - 1) / rows;
    const bool past = c.K % 16 == 0 && (uintptr_t)y % 64 == 0 && c.N * c.Ho * c.Wo * c.K > LARGE;
    const bool plain = !bias && !residual && !relu;
    const Args a{start, at, value, k, c.stride * pixel, c.K, bias, residual, y, relu != 0, past, plain, order};
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)c.threads)
    for (int64_t item = 0; item < images * chunks * cuts; item++) {
        const int64_t n = item / (chunks * cuts), h0 = item / cuts % chunks * rows, p0 = item % cuts * across;
        const int64_t h1 = std::min(height, h0 + rows), wide = std::min(across, pixels - p0);
        const int64_t length = run_length(wide, LONGEST), left = wide % length;
        const float* image = x + n * c.H * c.Wd * c.C;
        const float* base = image + h0 * c.stride * c.Wd * c.C + p0 * a.xs;
        int64_t row = c.Wd * pixel * c.stride;
        if (copied) {
            float* packed = scratch(0, (flat ? wide : ((rows - 1) * c.stride + c.R) * padded) * pixel);
            if (flat) pack_rows(packed, x + p0 * c.C, 1, wide, c.C, 0, 1, 0, wide, pixel);
            else
                pack_rows(packed, image, c.H, c.Wd, c.C, h0 * c.stride - c.pad, (h1 - h0 - 1) * c.stride + c.R, c.pad,
                          padded, pixel);
            base = packed, row = padded * pixel * c.stride;
        }
        static thread_local Runs full, rest;
        full.clear(), rest.clear();
        for (int64_t h = h0; h < h1; h++) {
            const float* from = base + (h - h0) * row;
            float* to = y + ((n * c.Ho + h) * c.Wo + p0) * c.K;
            for (int64_t p = 0; p + length <= wide; p += length) full.add(from + p * a.xs, to + p * c.K);
            if (left) rest.add(from + (wide - left) * a.xs, to + (wide - left) * c.K);
        }
        runs_of(a, full, length, rest, left, groups, copied ? 0 : c.C);
        if (past) fence();
    }
}
