// Gradient of the input under narrow blocks (2 or 4 channels) in bfloat16: lanes are pixels.
//
// dxT[channel][pixels] += w[pair of rows, channel] . dyT[pair of rows][pixels]: a strip of dy is turned over, pairs of rows as
// floats, with zeros around it, so that a tap is an offset. A tile of M channels of one row group x V vectors stays in registers
// while its rows and taps go by: V loads and M broadcasts for M V dot products, whatever channels these are; no sum over lanes,
// and weights are read where they lie, for a pair of rows lies side by side there. Lanes between the rows of a strip are computed
// and thrown away.
#include "blocks_bf16.h"

#if defined(__AVX512BF16__)
namespace {

struct Layer {
    const Half* value;
    int64_t pairs, sets, taps;              // pairs of rows of a group
    const int32_t *start, *row, *place;     // of a set of channels: first quad, first pair (-1: reads nothing), lane
    const int32_t *channel, *source;        // [quads][4]: where a channel's rows lie; -1: no channel
    const int32_t *tap_place, *tap_source;  // what a tap adds to both
};

constexpr int FOUR = 4, LONGEST = 6;  // channels and vectors of a tile

template <int M, int V>
void tile(const Layer& a, const float* dy, int64_t plane, const Half* const* weight, float* const* x) {
    Vec acc[M][V];
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int v = 0; v < V; v++) acc[m][v] = load(x[m] + v * W);
    for (int64_t t = 0; t < a.taps; t++) {
        const float* w[M];
        UNROLL for (int m = 0; m < M; m++) w[m] = (const float*)(weight[m] + a.tap_source[t]);
        const float* d = dy + a.tap_place[t];
        for (int64_t r = 0; r < a.pairs; r++, d += plane) {
            Vec lanes[V];
            UNROLL for (int v = 0; v < V; v++) lanes[v] = held(load(d + v * W));
            UNROLL for (int m = 0; m < M; m++) {
                const Vec in = splat(w[m][r]);
                UNROLL for (int v = 0; v < V; v++) acc[m][v] = dot(acc[m][v], in, lanes[v]);
            }
        }
    }
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int v = 0; v < V; v++) store(x[m] + v * W, acc[m][v]);
}

using Tile = void (*)(const Layer&, const float*, int64_t, const Half* const*, float* const*);

template <int V>
Tile of_channels(int64_t channels) {
    static const Tile table[] = {nullptr, tile<1, V>, tile<2, V>, tile<3, V>, tile<4, V>};
    return table[channels];
}

Tile tile_of(int64_t channels, int64_t vectors) {
    switch (vectors) {
        case 1: return of_channels<1>(channels);
        case 2: return of_channels<2>(channels);
        case 3: return of_channels<3>(channels);
        case 4: return of_channels<4>(channels);
        case 5: return of_channels<5>(channels);
        default: return of_channels<6>(channels);
    }
}

// Channels [c0, c1) of all sets, added to x[channel - c0][lanes].
void add(const Layer& a, const float* y, int64_t plane, float* x, int64_t lanes, int64_t c0, int64_t c1) {
    const int64_t vectors = lanes / W, cuts = (vectors + LONGEST - 1) / LONGEST;
    for (int64_t set = 0; set < a.sets; set++) {
        if (a.row[set] < 0) continue;
        int64_t e = a.start[set] * 4, end = a.start[set + 1] * 4;
        while (end > e && a.source[end - 1] < 0) end--;
        e = std::lower_bound(a.channel + e, a.channel + end, c0) - a.channel;
        end = std::lower_bound(a.channel + e, a.channel + end, c1) - a.channel;
        const float* dy = y + a.row[set] * plane + a.place[set];
        for (; e < end; e += FOUR) {
            const int64_t channels = std::min<int64_t>(FOUR, end - e);
            const Half* w[FOUR];
            for (int64_t m = 0; m < channels; m++) w[m] = a.value + a.source[e + m];
            for (int64_t cut = 0; cut < cuts; cut++) {
                const int64_t from = vectors * cut / cuts, to = vectors * (cut + 1) / cuts;
                float* at[FOUR];
                for (int64_t m = 0; m < channels; m++) at[m] = x + (a.channel[e + m] - c0) * lanes + from * W;
                tile_of(channels, to - from)(a, dy + from * W, plane, w, at);
            }
        }
    }
}

// Pixels `from`, as many as lanes in a plane, turned into pairs of channels [C / 2][plane].
void turn_in(const Half* const* from, int64_t C, float* to, int64_t plane) {
    for (int64_t p = 0; p < plane; p += 16) {
        int64_t j = 0;
        for (; j + 16 <= C / 2; j += 16)
            turn16([&](int i) { return (const float*)from[p + i] + j; }, to + j * plane + p, plane);
        for (; j < C / 2; j++)
            for (int i = 0; i < 16; i++) std::memcpy(to + j * plane + p + i, from[p + i] + 2 * j, 4);
    }
}

// Channels [0, n) of x, rows of `lanes`, to the pixels `to`; null: thrown away.
template <bool PAST>
void turn_out(const float* x, int64_t lanes, int64_t n, Half* const* to) {
    alignas(64) float pairs[256], turned[256];
    for (int64_t p = 0; p < lanes; p += 16) {
        int64_t c = 0;
        for (; c + 32 <= n; c += 32) {
            UNROLL for (int i = 0; i < 16; i++) {
                const float* row = x + (c + 2 * i) * lanes + p;
                store(pairs + i * 16, narrow_pairs(load(row), load(row + lanes)));
            }
            turn16([&](int i) { return pairs + i * 16; }, turned, 16);
            for (int i = 0; i < 16; i++)
                if (Half* pixel = to[p + i]) {
                    const Vec v = load(turned + i * 16);
                    PAST ? stream((float*)(pixel + c), v) : store((float*)(pixel + c), v);
                }
        }
        for (; c < n; c++)
            for (int i = 0; i < 16; i++)
                if (to[p + i]) {
                    Half both[16];
                    narrow(both, splat(x[c * lanes + p + i]));
                    to[p + i][c] = both[0];
                }
    }
}

// Rows [i0, i1) of image n, or so many pixels of all images.
struct Item {
    int64_t n, i0, i1;
};

struct Strip {  // the lanes of an item: where they read, where they write
    std::vector<const Half*> from;
    std::vector<Half*> to;
};

// Lanes of dy with all around them that taps reach, and lanes of dx; the latter begin where the former do.
void strip_of(Strip& s, const Sizes& c, const Item& item, const Half* dy, Half* dx, const Half* zeros, int64_t padded) {
    if (c.flat()) {
        const int64_t lanes = (item.i1 - item.i0 + 15) / 16 * 16;
        s.from.assign(lanes, zeros), s.to.assign(lanes, nullptr);
        for (int64_t p = item.i0; p < item.i1; p++) s.from[p - item.i0] = dy + p * c.C, s.to[p - item.i0] = dx + p * c.K;
        return;
    }
    const int64_t rows = item.i1 - item.i0, in = (rows + c.reach - 1) * padded, out = (rows - 1) * padded + c.columns;
    s.from.assign((in + 30) / 16 * 16, zeros), s.to.assign((out + 15) / 16 * 16, nullptr);
    for (int64_t i = 0; i < rows + c.reach - 1; i++) {
        const int64_t h = item.i0 + i - c.before;
        if (h < 0 || h >= c.H) continue;
        for (int64_t w = 0; w < std::min(c.Wd, padded - c.before); w++)
            s.from[i * padded + c.before + w] = dy + ((item.n * c.H + h) * c.Wd + w) * c.C;
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t w = 0; w < c.columns; w++)
            s.to[i * padded + w] =
                dx + ((item.n * c.high + (item.i0 + i) * c.apart + c.down) * c.wide + w * c.apart + c.right) * c.K;
}

std::vector<Item> items_of(const Sizes& c, int64_t padded, int64_t cache) {
    std::vector<Item> items;
    const int64_t lanes = std::max<int64_t>(16, cache / (c.C / 2 + c.K)), length = c.flat() ? c.N * c.H * c.Wd : c.rows;
    const int64_t most = c.flat() ? std::min<int64_t>(LONGEST * W, lanes / 16 * 16) : std::max<int64_t>(1, lanes / padded);
    int64_t cuts = (length + most - 1) / most;
    if (c.flat() && cuts > 1 && cuts < 32 * c.threads) cuts = (cuts + c.threads - 1) / c.threads * c.threads;
    const int64_t unit = c.flat() ? 16 : 1, units = (length + unit - 1) / unit;
    for (int64_t n = 0; n < (c.flat() ? 1 : c.N); n++)
        for (int64_t i = 0; i < cuts; i++) {
            const int64_t from = units * i / cuts * unit, to = std::min(length, units * (i + 1) / cuts * unit);
            if (from < to) items.push_back({n, from, to});
        }
    return items;
}

}  // namespace

// `sizes`: as for the convolution of dy [C outputs] that gives dx [K inputs]. `cache`: floats of a second cache that dyT and
// dxT may fill. `order` [C]: row j of the blocks is output order[j]; or null.
extern "C" void campfire_blocks_bf16_d_input(const int64_t* sizes, const Half* dy, const Half* value, int64_t k, int64_t sets,
                                             const int32_t* start, const int32_t* row, const int32_t* place,
                                             const int32_t* channel, const int32_t* source, int64_t taps,
                                             const int32_t* tap_place, const int32_t* tap_source, const int32_t* order,
                                             Half* dx, int64_t padded, int64_t cache) {
    const Sizes c = *(const Sizes*)sizes;
    const Layer layer{value, k / 2, sets, taps, start, row, place, channel, source, tap_place, tap_source};
    const Shuffle shuffle(order, c.C);
    const std::vector<Item> items = items_of(c, padded, cache);
    if (items.empty()) return;  // of an image one pixel high
    const std::vector<Half> zeros(c.C);
    const int64_t wide = (c.K + 31) / 32, needed = (2 * c.threads + items.size() - 1) / items.size();
    const int64_t ranges = (int64_t)items.size() >= c.threads ? 1 : std::min(wide, needed);
    const bool reads = taps > 0 && std::any_of(row, row + sets, [](int32_t at) { return at >= 0; });
    const bool past = c.K % 32 == 0 && (uintptr_t)dx % 64 == 0 && c.N * c.rows * c.columns * c.K > 2 * LARGE;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)c.threads)
    for (int64_t unit = 0; unit < (int64_t)items.size() * ranges; unit++) {
        const Item& item = items[unit / ranges];
        const int64_t range = unit % ranges, c0 = range * wide / ranges * 32;
        const int64_t c1 = std::min(c.K, (range + 1) * wide / ranges * 32);
        static thread_local Strip strip;
        strip_of(strip, c, item, dy, dx, zeros.data(), padded);
        const int64_t plane = strip.from.size(), lanes = strip.to.size();
        if (order && reads) {
            Half* rows = (Half*)scratch(2, plane * c.C / 2);
            for (int64_t p = 0; p < plane; p++)
                if (strip.from[p] != zeros.data()) {
                    shuffle(rows + p * c.C, c.C, strip.from[p], c.C, 1);
                    strip.from[p] = rows + p * c.C;
                }
        }
        float *y = scratch(0, c.C / 2 * plane), *x = scratch(1, (c1 - c0) * lanes);
        if (reads) turn_in(strip.from.data(), c.C, y, plane);
        std::memset(x, 0, sizeof(float) * (c1 - c0) * lanes);
        if (reads) add(layer, y, plane, x, lanes, c0, c1);
        for (Half*& pixel : strip.to)
            if (pixel) pixel += c0;
        (past ? turn_out<true> : turn_out<false>)(x, lanes, c1 - c0, strip.to.data());
        if (past) fence();
    }
}
#endif
