// Forward convolution with blocks of output rows, NHWC: y[pixel, rows] += x[pixel, channel] * w[entry, rows].
//
// An entry is one (input channel, tap) of a block of k rows: k weights side by side, and the place of its input relative
// to a pixel. A tile keeps SEG x L pixels x V vectors of rows in registers; per entry it loads V weight vectors and
// broadcasts one input a pixel, so that loads stay below the two FMAs a cycle.
#include "ahead.h"
#include "blocks_after.h"
#include "conv.h"

namespace {

struct Args {
    const int32_t* start;  // [groups + 1]: first entry of every row group
    const int32_t* at;     // [entries]: offset of the input from the pixel
    const float* value;    // [entries][k]
    int64_t k;
    int64_t xs, ys;      // floats from pixel to pixel
    const After* after;  // null: nothing
    bool past;
};

template <int V, int L, int SEG>
void tile(const Args& a, const float* const* x, float* const* y, int64_t g, Soon soon) {
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
            V == 1 ? soon.step() : soon.wide_step();  // half as many rows an entry, half as much to fetch
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
        if (!a.after) {
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
            for (int p = 0; p < L; p++) finish<V>(*a.after, sums[s][p], y[s] + p * a.ys, g * a.k + h);
    }
}

using Tile = void (*)(const Args&, const float* const*, float* const*, int64_t, Soon);
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

template <int V>
void all(const Args& a, const After& after, const Runs& runs, int64_t length, int64_t groups, const float* strip, int64_t floats) {
    constexpr int SEG = V == 1 ? 4 : 2;
    const int64_t segs = a.xs % 1024 == 0 ? 2 : SEG;  // else 28 pixels share one set of the first cache
    const int64_t n = runs.x.size(), tiles = (n + segs - 1) / segs;
    const Aside aside(after, SEG, length, groups * a.k);
    Args args = a;
    if (after.order) args.ys = aside.apart, args.after = nullptr, args.past = false;
    const Tile many = segs == SEG ? tile_of<V, SEG>(length) : tile_of<V, 2>(length), one = tile_of<V, 1>(length);
    float* sums[SEG];
    for (int s = 0; s < SEG; s++) sums[s] = aside.run(s);
    for (int64_t i = 0, count = 0; i < n; count++) {
        const int64_t step = i + segs <= n ? segs : 1, next = std::min<int64_t>(n - 1, i + step);
        const Soon soon = strip ? Soon::in_steps(strip + count * floats / tiles, floats / tiles, a.start[groups])
                                : Soon::in_steps(runs.x[next], step * length * a.xs, a.start[groups]);
        for (int64_t g = 0; g < groups; g++)
            (step == segs ? many : one)(args, &runs.x[i], after.order ? sums : &runs.y[i], g, soon.after(a.start[g]));
        if (after.order) aside.put(step, &runs.y[i]);
        i += step;
    }
}

// One call, cut into items: rows of an image, or pixels of the one long row of a 1x1 convolution.
struct Job {
    Conv c;
    const float* x;
    float* y;
    int64_t pixel, groups, pixels, height, images, padded, rows, across, cuts, chunks;
    bool copied;

    Job(const Conv& conv, const float* x, float* y, int64_t k, int64_t apart, int64_t strip)
        : c(conv), x(x), y(y), pixel(apart ? apart : c.C), groups(c.K / k), padded(c.Wd + 2 * c.pad), copied(apart != 0) {
        const bool flat = c.flat();
        pixels = flat ? c.N * c.H * c.Wd : c.Wo, height = flat ? 1 : c.Ho, images = flat ? 1 : c.N;
        rows = flat ? 1 : rows_of_item(c, c.Ho, std::max<int64_t>(2, strip / (padded * pixel * c.stride)));
        const int64_t share = (pixels + 14 * c.threads - 1) / (14 * c.threads) * 14;
        across = flat ? std::max<int64_t>(28, std::min({share, int64_t(224), strip / pixel / 14 * 14})) : pixels;
        cuts = (pixels + across - 1) / across, chunks = (height + rows - 1) / rows;
    }

    int64_t items() const { return images * chunks * cuts; }
    const float* image(int64_t item) const { return x + item / (chunks * cuts) * c.H * c.Wd * c.C; }
    int64_t first_row(int64_t item) const { return item / cuts % chunks * rows; }
    int64_t last_row(int64_t item) const { return std::min(height, first_row(item) + rows); }

    // A strip of pixels or padded rows of x.
    const float* copy(int64_t item) const {
        if (c.flat()) {
            const int64_t p0 = item % cuts * across, wide = std::min(across, pixels - p0);
            float* packed = scratch(0, wide * pixel);
            pack_rows(packed, x + p0 * c.C, 1, wide, c.C, 0, 1, 0, wide, pixel);
            return packed;
        }
        const int64_t h0 = first_row(item), high = (last_row(item) - h0 - 1) * c.stride + c.R;
        float* packed = scratch(0, ((rows - 1) * c.stride + c.R) * padded * pixel);
        pack_rows(packed, image(item), c.H, c.Wd, c.C, h0 * c.stride - c.pad, high, c.pad, padded, pixel);
        return packed;
    }

    template <int V>
    void run(const Args& a, const After& after, int64_t item) const {
        const int64_t n = item / (chunks * cuts), h0 = first_row(item), p0 = item % cuts * across;
        const int64_t wide = std::min(across, pixels - p0), length = run_length(wide, LONGEST), left = wide % length;
        const float* base = copied ? copy(item) : image(item) + h0 * c.stride * c.Wd * c.C + p0 * a.xs;
        static thread_local Runs full, rest;
        full.clear(), rest.clear();
        for (int64_t h = h0; h < last_row(item); h++) {
            const float* from = base + (h - h0) * (copied ? padded : c.Wd) * pixel * c.stride;
            float* to = y + ((n * c.Ho + h) * c.Wo + p0) * c.K;
            for (int64_t p = 0; p + length <= wide; p += length) full.add(from + p * a.xs, to + p * c.K);
            if (left) rest.add(from + (wide - left) * a.xs, to + (wide - left) * c.K);
        }
        const int64_t then = std::min(items() - 1, item + c.threads);  // threads mostly take turns
        const int64_t wanted = c.flat() ? across : (last_row(then) - first_row(then)) * c.stride * c.Wd;
        const float* strip = copied ? image(then) + (c.flat() ? then * across : first_row(then) * c.stride * c.Wd) * c.C : nullptr;
        if (!full.x.empty()) all<V>(a, after, full, length, groups, strip, wanted * c.C);
        if (!rest.x.empty()) all<V>(a, after, rest, left, groups, strip, 0);
    }
};

}  // namespace

// `pixel`: floats from pixel to pixel of a padded copy of x, strip by strip; 0: x is read where it lies.
extern "C" void campfire_blocks_forward(const int64_t* sizes, const float* x, const int32_t* start, const int32_t* at,
                                        const float* value, int64_t k, const int32_t* order, const int32_t* moves,
                                        const float* bias, const float* residual, int64_t relu, float* y, int64_t pixel, int64_t strip) {
    const Conv c = *(const Conv*)sizes;
    const bool past = c.K % 16 == 0 && (uintptr_t)y % 64 == 0 && c.N * c.Ho * c.Wo * c.K > LARGE;
    const Job job(c, x, y, k, pixel, strip);
    const After after{bias, residual, y, relu != 0, past, order, moves};
    const Args a{start, at, value, k, c.stride * job.pixel, c.K, after.plain() ? nullptr : &after, past};
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)c.threads)
    for (int64_t item = 0; item < job.items(); item++) {
        k % (2 * W) == 0 ? job.run<2>(a, after, item) : job.run<1>(a, after, item);
        if (past) fence();
    }
}
