// Gradient of the weights of blocks in bfloat16, NHWC, by tile products (AMX):
// dw[output, channel] = sum over pixels of dy[pixel, output] * x[pixel, channel], 32 x 32 or 16 x 32 at a time for each tap.
//
// Pixels are what is summed over, in pairs: the same pixel of two images (none beside the last of an odd number). dy is turned
// over, [outputs][16 positions], for a left factor; x is interleaved, [positions][16 channels], for a right one. A position is a
// pair of pixels. `side` pairs of images lie side by side, so that a row of few pixels fills tiles too, and columns of x that a
// stride skips lie apart: then a tap only moves where x is read, by whole lines, and a row's positions follow each other.
// The last tile of a row takes positions again that the tile before has counted: there dy is zero, and what they meet in x,
// finite or not, has reached the same sums already.
// Loads a product: 1.0 under blocks of 32 outputs (2 + 2 for 4), 1.25 under 16 (1 + 4 for 4). Both factors are whole lines.
#include "blocks_bf16_sums.h"
#include "tiles.h"

#if defined(CAMPFIRE_TILES)
namespace {

constexpr int64_t DEPTH = 16;    // positions in a tile
constexpr int64_t TILE = 256;    // floats
constexpr int64_t AT_ONCE = 16;  // tiles of dy that stay in the first cache: 32 KB of 32 outputs

struct Tap {
    int64_t block, place;  // of 32 channels; where its x begins
};

// The tiles of a row group that are summed at once: `dy` one after the other, `at` of x.
struct Range {
    const float* dy;
    const int64_t* at;
    int64_t n;
};

// 32 outputs x 32 channels: 4 loads, 4 products.
void two_by_two(const Range& r, const float* x0, const float* x1, float* sums) {
    const float* dy = r.dy;
    tile_settle();
    TILE_LOAD(0, sums, 64);
    TILE_LOAD(1, sums + TILE, 64);
    TILE_LOAD(2, sums + 2 * TILE, 64);
    TILE_LOAD(3, sums + 3 * TILE, 64);
    for (int64_t i = 0; i < r.n; i++, dy += 2 * TILE) {
        TILE_LOAD(4, dy, 64);
        TILE_LOAD(6, x0 + r.at[i], 64);
        TILE_DOT(0, 4, 6);
        TILE_LOAD(7, x1 + r.at[i], 64);
        TILE_DOT(1, 4, 7);
        TILE_LOAD(5, dy + TILE, 64);
        TILE_DOT(2, 5, 6);
        TILE_DOT(3, 5, 7);
    }
    TILE_STORE(0, sums, 64);
    TILE_STORE(1, sums + TILE, 64);
    TILE_STORE(2, sums + 2 * TILE, 64);
    TILE_STORE(3, sums + 3 * TILE, 64);
}

// 16 outputs x 32 channels of two blocks: 5 loads, 4 products.
void one_by_four(const Range& r, const float* const* x, float* sums) {
    const float *dy = r.dy, *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    tile_settle();
    TILE_LOAD(0, sums, 64);
    TILE_LOAD(1, sums + TILE, 64);
    TILE_LOAD(2, sums + 2 * TILE, 64);
    TILE_LOAD(3, sums + 3 * TILE, 64);
    for (int64_t i = 0; i < r.n; i++, dy += TILE) {
        TILE_LOAD(4, dy, 64);
        TILE_LOAD(6, x0 + r.at[i], 64);
        TILE_DOT(0, 4, 6);
        TILE_LOAD(7, x1 + r.at[i], 64);
        TILE_DOT(1, 4, 7);
        TILE_LOAD(6, x2 + r.at[i], 64);
        TILE_DOT(2, 4, 6);
        TILE_LOAD(7, x3 + r.at[i], 64);
        TILE_DOT(3, 4, 7);
    }
    TILE_STORE(0, sums, 64);
    TILE_STORE(1, sums + TILE, 64);
    TILE_STORE(2, sums + 2 * TILE, 64);
    TILE_STORE(3, sums + 3 * TILE, 64);
}

// 16 outputs x 32 channels: 3 loads, 2 products.
void one_by_two(const Range& r, const float* x0, const float* x1, float* sums) {
    const float* dy = r.dy;
    tile_settle();
    TILE_LOAD(0, sums, 64);
    TILE_LOAD(1, sums + TILE, 64);
_Pragma("GCC unroll 1")  // it would be written out 16 times
    for (int64_t i = 0; i < r.n; i++, dy += TILE) {
        TILE_LOAD(4, dy, 64);
        TILE_LOAD(6, x0 + r.at[i], 64);
        TILE_DOT(0, 4, 6);
        TILE_LOAD(7, x1 + r.at[i], 64);
        TILE_DOT(1, 4, 7);
    }
    TILE_STORE(0, sums, 64);
    TILE_STORE(1, sums + TILE, 64);
}

// The same pixel of two images; all zeros where there is none.
struct Spot {
    const Half *a, *b;
};

// Positions of a row that a tile takes, and how many of them the tile before has counted.
struct Cut {
    int64_t from, counted;
};

// How many pairs of images lie side by side: as few as fill the tiles of a row best, as often as whole images fit.
int64_t side_by_side(const Conv& c, int64_t pairs, int64_t positions) {
    auto tiles = [&](int64_t side) { return (c.Wo * side + DEPTH - 1) / DEPTH; };
    int64_t best = 1;
    for (int64_t side = 2; side <= std::min(pairs, DEPTH); side++)
        if (side * tiles(best) > best * tiles(side)) best = side;
    return best * std::max<int64_t>(1, std::min(positions / (c.Ho * c.Wo * best), pairs / best));
}

struct Job {
    Conv c;
    const Half *x, *dy;
    Half* dw;
    const Shuffle* shuffle;  // null: the blocks' outputs are in order
    const int32_t *start, *source;  // [groups + 1] in blocks; [blocks][32]: where a channel's k weights lie
    std::vector<Tap> taps;          // of each block
    int64_t k, pairs, side, rows, cuts, phases, columns, line, plane;
    std::vector<Cut> tiles;   // of a row
    int64_t depth;            // positions of each
    std::vector<int64_t> at;  // of x, for the tiles of all rows of an item
    std::vector<Half> zeros;

    Job(const Conv& conv, int64_t k, int64_t positions) : c(conv), k(k), zeros(std::max(c.C, c.K)) {
        pairs = (c.N + 1) / 2, side = side_by_side(c, pairs, positions);
        rows = run_length(c.Ho, std::max<int64_t>(1, positions / (c.Wo * side))), cuts = (c.Ho + rows - 1) / rows;
        phases = std::min(c.stride, c.S), columns = c.Wo + (c.S - 1) / c.stride;
        line = phases * columns * side * 16, plane = ((rows - 1) * c.stride + c.R) * line;
        const int64_t row = c.Wo * side;
        depth = run_length(row, DEPTH);
        for (int64_t p = 0; p < row; p += depth) tiles.push_back({std::min(p, row - depth), p - std::min(p, row - depth)});
        for (int64_t h = 0; h < rows; h++)
            for (const Cut& cut : tiles) at.push_back(h * c.stride * line + cut.from * 16);
    }

    int64_t count() const { return (pairs + side - 1) / side * cuts; }
    int64_t threads() const { return c.threads; }
    int64_t x_floats() const { return c.C / 16 * plane; }
    int64_t dy_floats() const { return c.K / 16 * rows * tiles.size() * TILE; }
    int64_t first_row(int64_t i) const { return i % cuts * rows; }
    int64_t rows_of(int64_t i) const { return std::min(rows, c.Ho - first_row(i)); }
    int64_t x_lines(int64_t i) const { return (rows_of(i) - 1) * c.stride + c.R; }
    int64_t lines(int64_t i) const { return x_lines(i) + rows_of(i); }

    void interleave(int64_t i, int64_t j, float* xs, float* dys) const {
        if (j < x_lines(i)) return x_line(i, j, xs + j * line);
        j -= x_lines(i);
        dy_line(i, j, dys + j * tiles.size() * k * 16);
    }

    // Row `j` of what an item reads of x: [C / 16][phase][column][side][16 channels].
    void x_line(int64_t i, int64_t j, float* to) const {
        if (j % c.stride >= c.R) return;  // no tap reads it
        const int64_t h = first_row(i) * c.stride - c.pad + j;
        static thread_local std::vector<Spot> spots;
        spots.clear();
        for (int64_t phase = 0; phase < phases; phase++)
            for (int64_t column = 0; column < columns; column++)
                for (int64_t s = 0; s < side; s++) {
                    const int64_t n = 2 * (i / cuts * side + s), w = column * c.stride + phase - c.pad;
                    spots.push_back({x_at(n, h, w), x_at(n + 1, h, w)});
                }
        for (int64_t b = 0; b < c.C; b += 16, to += plane)
            for (size_t p = 0; p < spots.size(); p++) pair_up(spots[p], b, to + p * 16);
    }

    // Row `j` of an item's dy: of each row group [tile][k outputs][16 positions].
    void dy_line(int64_t i, int64_t j, float* to) const {
        const int64_t h = first_row(i) + j, row = c.Wo * side;
        static thread_local std::vector<Spot> spots;
        spots.assign(row, {zeros.data(), zeros.data()});
        for (int64_t s = 0; s < side; s++) {
            const int64_t n = 2 * (i / cuts * side + s);
            const Half *a = dy_row(n, h, 2 * s), *b = dy_row(n + 1, h, 2 * s + 1);
            for (int64_t w = 0; w < c.Wo; w++) {
                if (a) spots[w * side + s].a = a + w * c.K;
                if (b) spots[w * side + s].b = b + w * c.K;
            }
        }
        const int64_t group = rows * tiles.size() * k * 16;
        alignas(64) float spread[TILE];
        for (const Cut& cut : tiles) {
            for (int64_t o = 0; o < c.K; o += 16) {
                std::memset(spread, 0, sizeof spread);
                for (int64_t p = cut.counted; p < depth; p++) pair_up(spots[cut.from + p], o, spread + p * 16);
                turn16([&](int p) { return spread + p * 16; }, to + o / k * group + o % k * 16, 16);
            }
            to += k * 16;
        }
    }

    static void pair_up(const Spot& spot, int64_t channel, float* to) {
        for (int64_t h = 0; h < 16; h += W) store(to + h, paired(spot.a + channel + h, spot.b + channel + h));
    }

    const Half* x_at(int64_t n, int64_t h, int64_t w) const {
        const bool inside = n < c.N && h >= 0 && h < c.H && w >= 0 && w < c.Wd;
        return inside ? x + ((n * c.H + h) * c.Wd + w) * c.C : zeros.data();
    }

    // A row of image n, its outputs in the order of the blocks; null: no such image. `slot`: of this thread's room for rows.
    const Half* dy_row(int64_t n, int64_t h, int64_t slot) const {
        if (n >= c.N) return nullptr;
        const Half* row = dy + (n * c.Ho + h) * c.Wo * c.K;
        if (!shuffle) return row;
        Half* to = (Half*)scratch(2, side * c.Wo * c.K) + slot * c.Wo * c.K;
        (*shuffle)(to, c.K, row, c.K, c.Wo);
        return to;
    }

    void group(int64_t g, int64_t i, const float* xs, const float* dys, float* sums) const {
        const Products products(16, depth);
        const int64_t all = rows_of(i) * tiles.size(), floats = k * 16;
        dys += g * rows * tiles.size() * floats;
        for (int64_t from = 0; from < all; from += AT_ONCE)
            range({dys + from * floats, at.data() + from, std::min(AT_ONCE, all - from)}, g, xs, sums);
    }

    void range(const Range& r, int64_t g, const float* xs, float* sums) const {
        const int64_t size = k * 32, end = start[g + 1];
        auto x_of = [&](int64_t e, int64_t half) { return xs + (2 * taps[e].block + half) * plane + taps[e].place; };
        int64_t e = start[g];
        for (; k == 32 && e < end; e++) two_by_two(r, x_of(e, 0), x_of(e, 1), sums + e * size);
        for (; e + 2 <= end; e += 2) {
            const float* const x[] = {x_of(e, 0), x_of(e, 1), x_of(e + 1, 0), x_of(e + 1, 1)};
            one_by_four(r, x, sums + e * size);
        }
        for (; e < end; e++) one_by_two(r, x_of(e, 0), x_of(e, 1), sums + e * size);
    }

    // Sums [blocks][k / 16][2][16 outputs][16 channels] to where each channel keeps its k weights.
    void round(const Totals& totals) const {
        const int64_t parts = k / 8;  // tiles of a block
#pragma omp parallel for schedule(static) num_threads((int)c.threads)
        for (int64_t t = 0; t < (int64_t)taps.size() * parts; t++) {
            alignas(64) float sums[TILE], turned[TILE];
            for (int64_t e = 0; e < TILE; e += W) store(sums + e, totals.at(t * TILE + e));
            turn16([&](int m) { return sums + m * 16; }, turned, 16);
            const int32_t* to = source + t / parts * 32 + t % 2 * 16;
            for (int64_t n = 0; n < 16; n++)
                for (int64_t m = 0; m < 16; m += W) narrow(dw + to[n] + t % parts / 2 * 16 + m, load(turned + n * 16 + m));
        }
    }
};

}  // namespace

// Blocks of 32 channels at one tap: `start` [groups + 1], `block` and `tap` [blocks], `source` [blocks][32]: where in dw a
// channel's k weights lie. `order` [K]: row j of the blocks is output order[j]; or null. `positions`: most that are worked on at
// a time.
extern "C" void campfire_blocks_amx_d_values(const int64_t* sizes, const Half* x, const int32_t* start, const int32_t* block,
                                             const int32_t* tap, const int32_t* source, const Half* dy, int64_t k,
                                             const int32_t* order, Half* dw, int64_t positions) {
    const Conv c = *(const Conv*)sizes;
    const Shuffle shuffle(order, c.K);
    Job job(c, k, positions);
    job.x = x, job.dy = dy, job.dw = dw, job.start = start, job.source = source, job.shuffle = order ? &shuffle : nullptr;
    const int64_t groups = c.K / k, column = job.side * 16, phase = job.columns * column;
    for (int64_t e = 0; e < start[groups]; e++) {
        const int64_t r = tap[e] / c.S, s = tap[e] % c.S;
        job.taps.push_back({block[e], r * job.line + s % c.stride * phase + s / c.stride * column});
    }
    sum_up(job, groups, start[groups] * k * 32);
}
#endif
