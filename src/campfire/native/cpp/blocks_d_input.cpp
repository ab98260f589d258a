// Gradient of the input under blocks of output rows, NHWC: dx[pixel, channel] += sum over rows and taps of dy[pixel', rows] * w[rows, channel, tap].
//
// All channels that live in one row group read the same dy. So the lanes are 16 of *its* channels, four quads from wherever
// they are, and a tile of SEG x L pixels adds up its k rows and all taps in registers: one broadcast of dy and one FMA, as in the
// forward pass, and no sum over lanes. What is left of a group (1 to 3 quads) takes 4 or 8 lanes a row and several rows a
// vector. The weights are turned into this order once a call; dx of a tile stays in the first cache while groups add to it.
#include "ahead.h"
#include "conv.h"
#include "transpose.h"

namespace {

struct Chunk {  // V vectors x (4 / ROWS) quads of one row group
    int kind;   // index into the table of tiles
    int64_t quad, weight, at;
};

struct Args {
    const int32_t* tap_at;  // [taps]: offset of dy from the pixel
    int64_t taps, k, ys, xs;
    const float* weight;
    const int32_t* channel;  // [quads][4]; C where a quad has no more
    bool neighbours;
};

#if defined(__AVX512F__)
constexpr int LONGEST = 7, SEGS = 2;
#else
constexpr int LONGEST = 3, SEGS = 1;
#endif

// ROWS rows of dy, in all lanes, one after the other.
template <int ROWS>
inline Vec bring(const float* p) {
    if constexpr (ROWS == 1) return splat(*p);
#if defined(__AVX512F__)
    typedef float F __attribute__((vector_size(16), aligned(4), may_alias));
    typedef double D __attribute__((vector_size(64)));
    if constexpr (ROWS == 2) {
        double both;
        __builtin_memcpy(&both, p, 8);
        return (Vec)(both - D{});
    }
    return (Vec)_mm512_broadcast_f32x4((__m128)*(const F*)p);
#else
    float lanes[W];
    for (int i = 0; i < W; i++) lanes[i] = p[i % ROWS];
    return load(lanes);
#endif
}

typedef float Four __attribute__((vector_size(16)));
typedef float FourU __attribute__((vector_size(16), aligned(4), may_alias));

// The sums of 16 / ROWS channels, quad by quad: lanes are [channel][ROWS]. In registers: a load cannot follow a wider store at once.
template <int ROWS>
inline void quads_of(const Vec* acc, Four* out) {
#if defined(__AVX512F__)
    Vec v = acc[0];
    if constexpr (ROWS > 1) v += __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    if constexpr (ROWS > 2) v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    constexpr int R = ROWS;
    out[0] = __builtin_shufflevector(v, v, 0, R, 2 * R, 3 * R);
    if constexpr (ROWS < 4) out[1] = __builtin_shufflevector(v, v, 4 * R, 5 * R, 6 * R, 7 * R);
    if constexpr (ROWS < 2) out[2] = __builtin_shufflevector(v, v, 8, 9, 10, 11);
    if constexpr (ROWS < 2) out[3] = __builtin_shufflevector(v, v, 12, 13, 14, 15);
#else
    for (int j = 0; j < 16 / ROWS; j++) {
        float s = 0;
        for (int i = j * ROWS; i < (j + 1) * ROWS; i++) s += acc[i / W][i % W];
        out[j / 4][j % 4] = s;
    }
#endif
}

template <int ROWS>
inline void add(const Vec* acc, float* x, const int64_t* at, bool neighbours) {
    Four sums[4];
    quads_of<ROWS>(acc, sums);
    UNROLL for (int q = 0; q < 4 / ROWS; q++) {
        if (neighbours) *(FourU*)(x + at[4 * q]) += sums[q];
        else
            UNROLL for (int j = 0; j < 4; j++) x[at[4 * q + j]] += sums[q][j];
    }
}

template <int V, int ROWS, int L, int SEG>
void tile(const Args& a, const Chunk& chunk, const float* const* dy, float* const* x, Soon& next) {
    constexpr int Q = V * (16 / W);
    Vec acc[SEG][L][Q];
    UNROLL for (int s = 0; s < SEG; s++)
        UNROLL for (int p = 0; p < L; p++)
            UNROLL for (int q = 0; q < Q; q++) acc[s][p][q] = Vec{};
    const int64_t y1 = a.ys * 4, y3 = 3 * y1, y5 = 5 * y1;
    const float* w = a.weight + chunk.weight;
    Soon soon = next;
    for (int64_t t = 0; t < a.taps; t++) {
        const int64_t o = chunk.at + a.tap_at[t];
        for (int64_t k = 0; k < a.k; k += ROWS, w += 16 * V) {
            soon.step();
            Vec ww[Q];
            UNROLL for (int q = 0; q < Q; q++) ww[q] = load(w + q * W);
            UNROLL for (int s = 0; s < SEG; s++) {
                const float* b = dy[s] + o + k;
                UNROLL for (int p = 0; p < L; p++) {
                    Vec in = bring<ROWS>(&pixel(b, p, y1, y3, y5));
                    UNROLL for (int q = 0; q < Q; q++) acc[s][p][q] += in * ww[q];
                }
            }
        }
    }
    next = soon;
    int64_t at[16 * V / ROWS];
    UNROLL for (int j = 0; j < 16 * V / ROWS; j++) at[j] = a.channel[chunk.quad * 4 + j];
    const bool neighbours = a.neighbours;
    UNROLL for (int s = 0; s < SEG; s++)
        UNROLL for (int p = 0; p < L; p++)
            UNROLL for (int v = 0; v < V; v++)
                add<ROWS>(acc[s][p] + v * (16 / W), x[s] + p * a.xs, at + 16 * v, neighbours);
}

using Tile = void (*)(const Args&, const Chunk&, const float* const*, float* const*, Soon&);
const int QUADS[] = {8, 4, 2, 1}, ROWS[] = {1, 1, 2, 4};

template <int L, int SEG>
Tile of_kind(int kind) {
    static const Tile t[] = {tile<2, 1, L, SEG>, tile<1, 1, L, SEG>, tile<1, 2, L, SEG>, tile<1, 4, L, SEG>};
    return t[kind];
}

template <int SEG>
Tile tile_of(int kind, int64_t length) {
    switch (length) {
        case 1: return of_kind<1, SEG>(kind);
        case 2: return of_kind<2, SEG>(kind);
#if defined(__AVX512F__)
        case 4: return of_kind<4, SEG>(kind);
        case 5: return of_kind<5, SEG>(kind);
        case 6: return of_kind<6, SEG>(kind);
        case 7: return of_kind<7, SEG>(kind);
#endif
        default: return of_kind<3, SEG>(kind);
    }
}

// Every group's quads in chunks of 8, 4, 2 and 1.
std::vector<Chunk> chunks_of(const int32_t* start, const int32_t* at, int64_t sets, int64_t taps, int64_t k) {
    std::vector<Chunk> chunks;
    for (int64_t i = 0; i < sets; i++)
        for (int64_t q = start[i], kind = 0; at[i] >= 0 && q < start[i + 1]; q += QUADS[kind]) {  // -1: reads nothing
            for (kind = 0; QUADS[kind] > start[i + 1] - q;) kind++;
            chunks.push_back({(int)kind, q, q * 4 * taps * k, at[i]});
        }
    return chunks;
}

// A chunk's weights as [tap][k / rows][lanes]; `source`: where each of a quad's 4 channels keeps its k rows, -1: nowhere.
void reorder(float* to, const Chunk& chunk, const float* value, const int32_t* source, const int32_t* tap_source,
             int64_t taps, int64_t k) {
    static const float zeros[16] = {};
    const int quads = QUADS[chunk.kind], rows = ROWS[chunk.kind], lanes = quads * 4;
    const int32_t* from = source + chunk.quad * 4;
    for (int64_t t = 0; t < taps; t++, to += lanes * k) {
        const float* w = value + tap_source[t];
        if (rows == 1 && k % 16 == 0)
            for (int64_t r = 0; r < k; r += 16)
                for (int l = 0; l < lanes; l += 16)
                    turn16([&](int i) { return from[l + i] < 0 ? zeros : w + from[l + i] + r; }, to + r * lanes + l, lanes);
        else
            for (int64_t r = 0; r < k; r++)
                for (int l = 0; l < lanes; l++)
                    to[r / rows * rows * lanes + l * rows + r % rows] = from[l] < 0 ? 0 : w[from[l] + r];
    }
}

struct Runs {
    std::vector<const float*> dy;
    std::vector<float*> x;
    void clear() { dy.clear(), x.clear(); }
    void add(const float* from, float* to) { dy.push_back(from), x.push_back(to); }
};

// Every tile: zero, add all chunks up in a place that stays in the first cache, and write out once.
void all(const Args& a, const Runs& runs, int64_t length, const std::vector<Chunk>& chunks, int64_t C, bool past, Soon& soon) {
    const int64_t n = runs.x.size();
    if (!n) return;
    Tile many[4], one[4];
    for (int kind = 0; kind < 4; kind++) many[kind] = tile_of<SEGS>(kind, length), one[kind] = tile_of<1>(kind, length);
    const int64_t apart = C + 16;  // not a power of two: pixels would share a few sets of the cache
    float* sums = scratch(3, SEGS * LONGEST * apart);
    Args local = a;
    local.xs = apart;
    for (int64_t i = 0; i < n;) {
        const int64_t step = i + SEGS <= n ? SEGS : 1;
        float* x[SEGS];
        for (int s = 0; s < SEGS; s++) x[s] = sums + s * length * apart;
        std::memset(sums, 0, sizeof(float) * step * length * apart);
        for (const Chunk& chunk : chunks) (step == SEGS ? many : one)[chunk.kind](local, chunk, &runs.dy[i], x, soon);
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
                                        const int32_t* tap_at, const int32_t* tap_source, const int32_t* order, float* dx,
                                        int64_t lo, int64_t hi, int64_t pixel, int64_t strip) {
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
        pack_rows(packed, dy + n * c.Ho * c.Wo * c.K, c.Ho, c.Wo, c.K, i0 + lo, i1 - i0 + hi - lo, -lo, padded, pixel, order,
                  order ? scratch(2, (c.K + 1) * 16) : nullptr);
        const int64_t then = std::min(c.N * strips - 1, item + c.threads);  // threads mostly take turns
        Soon soon = Soon::in_steps(dy + (then / strips * c.Ho + std::min(c.Ho, then % strips * rows)) * c.Wo * c.K, rows * c.Wo * c.K, steps);
        for (const Phase& f : phases) f.run(c, packed, padded, dx + n * c.H * c.Wd * c.C, i0, i1, past, soon);
        if (past) fence();
    }
}
