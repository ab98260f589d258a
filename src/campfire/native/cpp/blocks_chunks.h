// Sums of the gradient of the input: 16 or 32 channels of one row group x a run of pixels, over the group's rows and all taps.
//
// What is left of a group (1 to 3 quads of channels) takes 4 or 8 lanes a row and several rows a vector.
#pragma once
#include "ahead.h"
#include "conv.h"
#include "transpose.h"

namespace {  // tables of functions, which flavours loaded side by side must not share

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

    bool turned() const { return W == 16 && !neighbours; }  // x is [channel][16 pixels], of all runs of a tile
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

// 16 pixels of n channels, from anywhere: turned over, each is one addition of a vector. Not inlined: the loop before it has
// all registers full of sums.
__attribute__((noinline)) void add_turned(const float* sums, float* x, const int32_t* channel, int n) {
#if defined(__AVX512F__)
    turn16_to([=](int i) { return sums + i * 16; }, [=](int j, Vec v) {
        if (j >= n) return;  // the list of channels may end there
        float* to = x + channel[j] * 16;
        store(to, load(to) + v);
    });
#endif
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
    if (a.turned()) {
        alignas(64) float sums[16][16];
        for (int v = 0; v < V; v++) {
            UNROLL for (int s = 0; s < SEG; s++)
                UNROLL for (int p = 0; p < L; p++) quads_of<ROWS>(acc[s][p] + v * (16 / W), (Four*)sums[s * L + p]);
            add_turned(sums[0], x[0], a.channel + chunk.quad * 4 + v * 16, 16 / ROWS);
        }
        return;
    }
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

}  // namespace
