// Gradient of the input of a 1x1 convolution under blocks of output rows: lanes are pixels. dxT[channel][pixels] += w[row, channel] * dyT[row][pixels].
//
// A strip of pixels is turned over, so that a row of dy is a few vectors. A tile of M channels of one row group x V vectors
// stays in registers while the group's k rows go by: V loads and M broadcasts for M V FMAs, whatever channels these are; no
// sum over lanes, weights read where they lie, and rows in any order, since a row of dyT may be put anywhere.
#include "ahead.h"
#include "conv.h"
#include "transpose.h"

namespace {

struct Layer {
    const float* value;
    int64_t k, sets;
    const int32_t *start, *at;          // of a set of channels that share a row group: first quad, first row
    const int32_t *channel, *source;    // [quads][4]: source -1: no channel
};

constexpr int FOUR = 4, LONGEST = W == 16 ? 6 : 2;  // channels and vectors of a tile

template <int M, int V>
void tile(const float* dy, int64_t pixels, int64_t k, const float* const* weight, float* const* x, Soon& next) {
    Vec acc[M][V];
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int v = 0; v < V; v++) acc[m][v] = load(x[m] + v * W);
    const float* w[M];
    UNROLL for (int m = 0; m < M; m++) w[m] = weight[m];
    Soon soon = next;
    for (int64_t r = 0; r < k; r++, dy += pixels) {
        soon.wide_step();
        Vec d[V];
        UNROLL for (int v = 0; v < V; v++) d[v] = held(load(dy + v * W));
        UNROLL for (int m = 0; m < M; m++) {
            Vec in = splat(w[m][r]);
            UNROLL for (int v = 0; v < V; v++) acc[m][v] += in * d[v];
        }
    }
    next = soon;
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int v = 0; v < V; v++) store(x[m] + v * W, acc[m][v]);
}

using Tile = void (*)(const float*, int64_t, int64_t, const float* const*, float* const*, Soon&);

template <int V>
Tile of_channels(int64_t channels) {
    static const Tile table[] = {nullptr, tile<1, V>, tile<2, V>, tile<3, V>, tile<4, V>};
    return table[channels];
}

Tile tile_of(int64_t channels, int64_t vectors) {
    switch (vectors) {
        case 1: return of_channels<1>(channels);
#if defined(__AVX512F__)
        case 3: return of_channels<3>(channels);
        case 4: return of_channels<4>(channels);
        case 5: return of_channels<5>(channels);
        case 6: return of_channels<6>(channels);
#endif
        default: return of_channels<2>(channels);
    }
}

// Channels [c0, c1) of one set, whose rows of dyT begin at dy, added to x[channel - c0][pixels].
void add_set(const Layer& a, int64_t set, const float* dy, float* x, int64_t pixels, int64_t c0, int64_t c1,
             Soon& soon) {
    int64_t first = a.start[set] * 4, end = a.start[set + 1] * 4;
    while (end > first && a.source[end - 1] < 0) end--;
    first = std::lower_bound(a.channel + first, a.channel + end, c0) - a.channel;
    end = std::lower_bound(a.channel + first, a.channel + end, c1) - a.channel;
    const int64_t vectors = pixels / W, cuts = (vectors + LONGEST - 1) / LONGEST;
    for (int64_t e = first; e < end; e += FOUR) {
        const int64_t channels = std::min<int64_t>(FOUR, end - e);
        const float* w[FOUR];
        for (int64_t m = 0; m < channels; m++) w[m] = a.value + a.source[e + m];
        for (int64_t cut = 0; cut < cuts; cut++) {
            const int64_t from = vectors * cut / cuts, to = vectors * (cut + 1) / cuts;
            float* at[FOUR];
            for (int64_t m = 0; m < channels; m++) at[m] = x + (a.channel[e + m] - c0) * pixels + from * W;
            tile_of(channels, to - from)(dy + from * W, pixels, a.k, w, at, soon);
        }
    }
}

// n pixels of dy [n][K] as rows of `pixels`; row j of the blocks is output order[j], `place` its inverse.
void turn_in(const float* dy, int64_t n, int64_t K, const int32_t* place, float* to, int64_t pixels) {
    for (int64_t p = 0; p < n; p += 16)
        for (int64_t j = 0; j < K; j += 16)
            turn16([&](int i) { return dy + std::min(p + i, n - 1) * K + j; },  // lanes past the end repeat the last pixel
                   [&](int i) { return to + (place ? place[j + i] : j + i) * pixels + p; });
}

// Channels [c0, c0 + channels) of x, rows of `pixels`, to the n pixels `to`.
template <bool PAST>
void turn_out(const float* x, int64_t pixels, int64_t n, float* const* to, int64_t c0, int64_t channels) {
    for (int64_t p = 0; p < n; p += 16)
        for (int64_t j = 0; j < channels; j += 16) {
            const float* from = x + j * pixels + p;
            if (p + 16 <= n && j + 16 <= channels)
                turn16<PAST>([=](int i) { return from + i * pixels; }, [=](int i) { return to[p + i] + c0 + j; });
            else
                for (int64_t q = p; q < std::min(n, p + 16); q++)
                    for (int64_t i = 0; i < std::min<int64_t>(16, channels - j); i++) to[q][c0 + j + i] = from[i * pixels + q - p];
        }
}

// Where the pixels [q0, q0 + n) of dy meet dx. Input pixels between them that the stride skips become zero.
void places(const Conv& c, float* dx, int64_t q0, int64_t n, int64_t c0, int64_t channels, float** to) {
    int64_t w = q0 % c.Wo * c.stride, h = q0 / c.Wo % c.Ho * c.stride;
    float* row = dx + (q0 / (c.Wo * c.Ho) * c.H + h) * c.Wd * c.C;
    for (int64_t q = 0; q < n; q++) {
        to[q] = row + w * c.C;
        for (int64_t i = 0; c.stride > 1 && i < std::min(c.stride, c.H - h); i++)
            for (int64_t j = i == 0; j < std::min(c.stride, c.Wd - w); j++)
                std::memset(to[q] + (i * c.Wd + j) * c.C + c0, 0, sizeof(float) * channels);
        if ((w += c.stride) < c.Wd) continue;
        const int64_t down = std::min(c.stride, c.H - h);
        w = 0, h = h + down < c.H ? h + down : 0, row += down * c.Wd * c.C;
    }
}

// Items of work: strips of pixels x ranges of channels. What a pixel's channel sums up depends on neither.
struct Cuts {
    int64_t blocks, strips, ranges = 1;  // blocks of 16 pixels

    Cuts(const Conv& c, int64_t cache) : blocks((c.N * c.Ho * c.Wo + 15) / 16) {
        constexpr int64_t FEW = 13, BEST = 6;
        const int64_t most = std::max<int64_t>(3, std::min(BEST, cache / (c.C + c.K) / 16));
        strips = (blocks + most - 1) / most;
        if (blocks <= FEW) strips = 1, ranges = std::min(c.threads, (c.C + 15) / 16);
        else if (strips < 32 * c.threads) strips = (strips + c.threads - 1) / c.threads * c.threads;
    }

    int64_t pixel(int64_t strip) const { return strip * blocks / strips * 16; }

    // As many items ahead as there are threads: they mostly take turns. `tiles`: of a strip, `steps`: of a tile.
    Soon soon(const Conv& c, const float* dy, int64_t item, int64_t tiles, int64_t steps) const {
        const int64_t strip = std::min(strips - 1, item / ranges + c.threads), pixels = pixel(strip + 1) - pixel(strip);
        return Soon::in_steps(dy + pixel(strip) * c.K, pixels * c.K, tiles * ((pixels / W + LONGEST - 1) / LONGEST) * steps);
    }
};

}  // namespace

// Stride any, padding 0. `cache`: floats of a second cache that dyT and dxT may fill.
extern "C" void campfire_blocks_d_input_1x1(const int64_t* sizes, const float* dy, const float* value, int64_t k, int64_t sets,
                                            const int32_t* start, const int32_t* at, const int32_t* channel,
                                            const int32_t* source, const int32_t* place, float* dx, int64_t cache) {
    const Conv c = *(const Conv*)sizes;
    const Layer layer{value, k, sets, start, at, channel, source};
    const Cuts cuts(c, cache);
    const bool past = c.C % 16 == 0 && (uintptr_t)dx % 64 == 0 && c.N * c.H * c.Wd * c.C > LARGE;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)c.threads)
    for (int64_t item = 0; item < cuts.strips * cuts.ranges; item++) {
        const int64_t strip = item / cuts.ranges, range = item % cuts.ranges;
        const int64_t q0 = cuts.pixel(strip), q1 = cuts.pixel(strip + 1);
        const int64_t pixels = q1 - q0, n = std::min(pixels, c.N * c.Ho * c.Wo - q0), wide = (c.C + 15) / 16;
        const int64_t c0 = range * wide / cuts.ranges * 16, c1 = std::min(c.C, (range + 1) * wide / cuts.ranges * 16);
        float *y = scratch(0, c.K * pixels), *x = scratch(1, (c1 - c0) * pixels);
        static thread_local std::vector<float*> to;
        to.resize(n);
        places(c, dx, q0, n, c0, c1 - c0, to.data());
        turn_in(dy + q0 * c.K, n, c.K, place, y, pixels);
        std::memset(x, 0, sizeof(float) * (c1 - c0) * pixels);
        Soon soon = cuts.soon(c, dy, item, start[sets], k);
        for (int64_t set = 0; set < sets; set++) add_set(layer, set, y + at[set] * pixels, x, pixels, c0, c1, soon);
        (past ? turn_out<true> : turn_out<false>)(x, pixels, n, to.data(), c0, c1 - c0);
        if (past) fence();
    }
}
