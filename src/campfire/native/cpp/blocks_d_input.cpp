// Gradient of the input under blocks of output rows, NHWC: dx[pixel, channel] += sum over rows and taps of dy[pixel', rows] * w[rows, channel, tap].
//
// All channels that live in one row group read the same dy. So the lanes are 16 of *its* channels, four quads from wherever
// they are, and a tile of SEG x L pixels adds up its k rows and all taps in registers: one broadcast of dy and one FMA, as in the
// forward pass, and no sum over lanes. What is left of a group (1 to 3 quads) takes 4 or 8 lanes a row and several rows a
// vector. The weights are turned into this order once a call; dx of a tile stays in the first cache while groups add to it:
// [pixel][channel] where quads are neighbours, else [channel][16 pixels], since a turn costs less than single additions.
#include "ahead.h"
#include "blocks_chunks.h"
#include "conv.h"

namespace {

struct Runs {
    std::vector<const float*> dy;
    std::vector<float*> x;
    void clear() { dy.clear(), x.clear(); }
    void add(const float* from, float* to) { dy.push_back(from), x.push_back(to); }
};

// Sums [C][16 pixels] to n pixels.
template <bool PAST>
void turn_back(const float* sums, int64_t C, int64_t n, float* const* to) {
    int64_t c = 0;
#if defined(__AVX512F__)
    for (; c + 16 <= C; c += 16)
        turn16_to([=](int i) { return sums + (c + i) * 16; }, [&](int p, Vec v) {
            if (p < n) PAST ? stream(to[p] + c, v) : store(to[p] + c, v);
        });
#endif
    for (; c < C; c++)
        for (int64_t p = 0; p < n; p++) to[p][c] = sums[c * 16 + p];
}

// Every tile: zero, add all chunks up in a place that stays in the first cache, and write out once.
void all(const Args& a, const Runs& runs, int64_t length, const std::vector<Chunk>& chunks, int64_t C, bool past, Soon& soon) {
    const int64_t n = runs.x.size();
    if (!n) return;
    Tile many[4], one[4];
    for (int kind = 0; kind < 4; kind++) many[kind] = tile_of<SEGS>(kind, length), one[kind] = tile_of<1>(kind, length);
    const int64_t apart = C + 16;  // not a power of two: pixels would share a few sets of the cache
    float* sums = scratch(3, 16 * apart);
    Args local = a;
    local.xs = apart;
    for (int64_t i = 0; i < n;) {
        const int64_t step = i + SEGS <= n ? SEGS : 1;
        float* x[SEGS];
        for (int s = 0; s < SEGS; s++) x[s] = sums + s * length * apart;
        std::memset(sums, 0, sizeof(float) * (a.turned() ? 16 * C : step * length * apart));
        for (const Chunk& chunk : chunks) (step == SEGS ? many : one)[chunk.kind](local, chunk, &runs.dy[i], x, soon);
        if (a.turned()) {
            float* to[16];
            for (int64_t p = 0; p < step * length; p++) to[p] = runs.x[i + p / length] + p % length * a.xs;
            (past ? turn_back<true> : turn_back<false>)(sums, C, step * length, to);
            i += step;
            continue;
        }
        for (int64_t s = 0; s < step; s++)
            for (int64_t p = 0; p < length; p++) {
                float* to = runs.x[i + s] + p * a.xs;
                const float* from = x[s] + p * apart;
                int64_t c = 0;
                if (past) for (; c < C; c += W) stream(to + c, load(from + c));
                else std::memcpy(to, from, sizeof(float) * C);
            }
        i += step;
    }
}

// The input pixels (h, w) with h % stride == phase h and w % stride == phase w: for them the gradient is again a convolution of
// stride 1, with the taps that reach them.
struct Phase {
    int64_t h, w, rows, columns, steps = 0;  // of weights, for one tile
    Args a;
    std::vector<Chunk> chunks;

    int64_t tiles(int64_t rows) const { return rows * columns / (SEGS * LONGEST) + 1; }

    // Rows [i0, i1) of the phase, from a padded copy of dy.
    void run(const Conv& c, const float* dy, int64_t padded, float* image, int64_t i0, int64_t i1, bool past, Soon& soon) const {
        if (columns == 0) return;  // of an image one pixel wide
        const int64_t length = run_length(columns, LONGEST), left = columns % length;
        static thread_local Runs full, rest;
        full.clear(), rest.clear();
        for (int64_t i = i0; i < std::min(i1, rows); i++) {
            const float* from = dy + (i - i0) * padded * a.ys;
            float* to = image + ((i * c.stride + h) * c.Wd + w) * c.C;
            for (int64_t p = 0; p + length <= columns; p += length) full.add(from + p * a.ys, to + p * a.xs);
            if (left) rest.add(from + (columns - left) * a.ys, to + (columns - left) * a.xs);
        }
        all(a, full, length, chunks, c.C, past, soon);
        all(a, rest, left, chunks, c.C, past, soon);
    }
};

// Their indices, one phase after the other.
struct Lists {
    int64_t sets;
    const int32_t *start, *channel, *source;          // of the sets: channels that read the same rows of dy through the same taps
    const int32_t *phase, *at, *tap_at, *tap_source;  // [phases][h, w, taps], [phases][sets], [taps of all], [taps of all]

    std::vector<Phase> phases(const Conv& c, int64_t count, int64_t k, int64_t pixel, bool neighbours) const {
        std::vector<Phase> all(count);
        for (int64_t p = 0, first = 0; p < count; first += phase[3 * p++ + 2]) {
            Phase& f = all[p];
            const int64_t taps = phase[3 * p + 2];
            f.h = phase[3 * p], f.w = phase[3 * p + 1];
            f.rows = (c.H - f.h + c.stride - 1) / c.stride, f.columns = (c.Wd - f.w + c.stride - 1) / c.stride;
            f.a = Args{tap_at + first, taps, k, pixel, c.C * c.stride, nullptr, channel, neighbours};
            if (taps) f.chunks = chunks_of(start, at + p * sets, sets, taps, k);
            for (const Chunk& chunk : f.chunks) f.steps += taps * k / ROWS[chunk.kind];
        }
        return all;
    }

    // Weights in the order of their use; a phase has its own.
    void turn_weights(std::vector<Phase>& all, float* weight, const float* value, int64_t threads) const {
        for (Phase& f : all) {
            f.a.weight = weight;
#pragma omp parallel for schedule(static) num_threads((int)threads)
            for (size_t i = 0; i < f.chunks.size(); i++)
                reorder(weight + f.chunks[i].weight, f.chunks[i], value, source, tap_source + (f.a.tap_at - tap_at), f.a.taps, f.a.k);
            weight += start[sets] * 4 * f.a.taps * f.a.k;
        }
    }
};

}  // namespace

// Output rows and columns from i + lo to i + hi reach input i * stride + phase. `pixel`: floats from pixel to pixel of a padded
// copy of dy.
extern "C" void campfire_blocks_d_input(const int64_t* sizes, const float* dy, const float* value, int64_t k, int64_t sets,
                                        const int32_t* start, const int32_t* channel, const int32_t* source,
                                        int64_t neighbours, int64_t count, const int32_t* phase, const int32_t* at,
                                        const int32_t* tap_at, const int32_t* tap_source, const int32_t* order,
                                        const int32_t* moves, float* dx, int64_t lo, int64_t hi, int64_t pixel, int64_t strip) {
    const Conv c = *(const Conv*)sizes;
    const Lists lists{sets, start, channel, source, phase, at, tap_at, tap_source};
    std::vector<Phase> phases = lists.phases(c, count, k, pixel, neighbours != 0);
    int64_t taps = 0;
    for (const Phase& f : phases) taps += f.a.taps;
    lists.turn_weights(phases, scratch(1, start[sets] * 4 * taps * k), value, c.threads);
    const bool past = c.C % 16 == 0 && (uintptr_t)dx % 64 == 0 && c.N * c.H * c.Wd * c.C > LARGE;
    const int64_t hs = (c.H + c.stride - 1) / c.stride, padded = (c.Wd + c.stride - 1) / c.stride + hi - lo;
    const int64_t rows = rows_of_item(c, hs, std::max<int64_t>(2, strip / (padded * pixel))), strips = (hs + rows - 1) / rows;
    int64_t steps = 0;
    for (const Phase& f : phases) steps += f.tiles(rows) * f.steps;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)c.threads)
    for (int64_t item = 0; item < c.N * strips; item++) {
        const int64_t n = item / strips, i0 = item % strips * rows, i1 = std::min(hs, i0 + rows);
        float* packed = scratch(0, (rows + hi - lo) * padded * pixel);
        pack_rows(packed, dy + n * c.Ho * c.Wo * c.K, c.Ho, c.Wo, c.K, i0 + lo, i1 - i0 + hi - lo, -lo, padded, pixel,
                  {order, moves}, order ? scratch(2, (c.K + 1) * 16) : nullptr);
        const int64_t then = std::min(c.N * strips - 1, item + c.threads);  // threads mostly take turns
        Soon soon = Soon::in_steps(dy + (then / strips * c.Ho + std::min(c.Ho, then % strips * rows)) * c.Wo * c.K, rows * c.Wo * c.K, steps);
        for (const Phase& f : phases) f.run(c, packed, padded, dx + n * c.H * c.Wd * c.C, i0, i1, past, soon);
        if (past) fence();
    }
}
