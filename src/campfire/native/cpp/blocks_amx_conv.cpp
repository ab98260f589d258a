// Convolution with blocks of 32 channels of x by 16 or 32 of y in bfloat16, NHWC, by tile products (AMX): the forward pass and
// the gradient of the input, on the walk and from the weights of the kernel without tiles.
//
// A run of up to 16 pixels is a left factor where it lies in x, one pixel a row; a block's weights at one tap, [pair][lane][2],
// are one or two right factors where they lie. Sums of two runs x 32 lanes, or of four runs x 16, stay in four tiles while the
// entries of a row group go by. Where rows are too narrow to fill a tile, a run takes a few columns of several images.
// A product of full tiles takes the multiplier 16 cycles, a load 16 lines, 8 cycles of the first cache's two ports. So what
// counts is loads a product: 1.0 with 32 lanes (2 + 2 for 4), 1.25 with 16 (4 + 1 for 4), 1.5 and 2.0 for a run that is left
// over. Below 2.0 the multiplier is what bounds, but that a run left over has only one or two sums, and a product waits for the
// one before it. The gradient under blocks of 16 outputs sums over 16, half of a full tile.
#include "blocks_bf16_walk.h"
#include "tiles.h"

extern "C" int64_t campfire_blocks_amx_built() {
#if defined(CAMPFIRE_TILES)
    return 1;
#else
    return 0;
#endif
}

#if defined(CAMPFIRE_TILES)
namespace {

// The entries of a row group, one after the other, and what is fetched meanwhile.
struct Entries {
    const int32_t *at, *end;
    const float* w;
    const char* next;
    int64_t step, row, pixel, apiece;  // from entry to entry in floats; of w, from pixel to pixel, and to fetch, in bytes

    Entries(const Args& a, int64_t g)
        : at(a.at + a.start[g]), end(a.at + a.start[g + 1]), w(a.value + a.start[g] * a.depth * a.lanes),
          next(a.next + a.start[g] * a.apiece), step(a.depth * a.lanes), row(a.lanes * 4), pixel(a.xs * 4),
          apiece(a.apiece) {}
    bool left() const { return at < end; }
    void pass() {
        for (const char* last = next + apiece; next < last; next += 64) ahead(next);
        at++, w += step;
    }
};

// Sums [runs][16][V W] of a tile to y.
template <int V>
void put(const Args& a, const float* sums, Half* const* y, int64_t lane, int64_t runs) {
    const Vec least = least_of(a);
    for (int64_t s = 0; s < runs; s++) {
        Half* to = y[s] + lane;
        for (int64_t p = 0; p < a.length; p += a.side, to += a.ys)
            for (int64_t n = 0; n < a.images; n++) {
                Vec z[V];
                UNROLL for (int v = 0; v < V; v++) z[v] = load(sums + ((s * 16 + p + n) * V + v) * W);
                finish<V>(a, z, to + n * a.image, least);
            }
    }
}

constexpr int WIDE = 32 / W, NARROW = 16 / W;  // vectors of 32 and 16 lanes
alignas(64) const float ZEROS[32] = {};

// Each tile function begins with the bias in every row (rows 0 bytes apart) and ends with its sums in memory.
const float* first_of(const Args& a, int64_t lane) {
    tile_settle();
    return a.bias ? a.bias + lane : ZEROS;
}

// 2 runs x 32 lanes: 4 loads, 4 products.
void two_by_two(const Args& a, const float* const* x, Half* const* y, int64_t g) {
    alignas(64) float sums[2 * 16 * 32];
    const float *first = first_of(a, g * 32), *x0 = x[0], *x1 = x[1];
    TILE_LOAD(0, first, 0);
    TILE_LOAD(1, first + 16, 0);
    TILE_LOAD(2, first, 0);
    TILE_LOAD(3, first + 16, 0);
    for (Entries e(a, g); e.left(); e.pass()) {
        TILE_LOAD(4, x0 + *e.at, e.pixel);
        TILE_LOAD(6, e.w, e.row);
        TILE_DOT(0, 4, 6);
        TILE_LOAD(7, e.w + 16, e.row);
        TILE_DOT(1, 4, 7);
        TILE_LOAD(5, x1 + *e.at, e.pixel);
        TILE_DOT(2, 5, 6);
        TILE_DOT(3, 5, 7);
    }
    TILE_STORE(0, sums, 128);
    TILE_STORE(1, sums + 16, 128);
    TILE_STORE(2, sums + 512, 128);
    TILE_STORE(3, sums + 528, 128);
    put<WIDE>(a, sums, y, g * 32, 2);
}

// 1 run x 32 lanes: 3 loads, 2 products.
void one_by_two(const Args& a, const float* const* x, Half* const* y, int64_t g) {
    alignas(64) float sums[16 * 32];
    const float *first = first_of(a, g * 32), *x0 = x[0];
    TILE_LOAD(0, first, 0);
    TILE_LOAD(1, first + 16, 0);
    for (Entries e(a, g); e.left(); e.pass()) {
        TILE_LOAD(4, x0 + *e.at, e.pixel);
        TILE_LOAD(6, e.w, e.row);
        TILE_DOT(0, 4, 6);
        TILE_LOAD(7, e.w + 16, e.row);
        TILE_DOT(1, 4, 7);
    }
    TILE_STORE(0, sums, 128);
    TILE_STORE(1, sums + 16, 128);
    put<WIDE>(a, sums, y, g * 32, 1);
}

// 4 runs x 16 lanes: 5 loads, 4 products.
void four_by_one(const Args& a, const float* const* x, Half* const* y, int64_t g) {
    alignas(64) float sums[4 * 16 * 16];
    const float *first = first_of(a, g * 16), *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    TILE_LOAD(0, first, 0);
    TILE_LOAD(1, first, 0);
    TILE_LOAD(2, first, 0);
    TILE_LOAD(3, first, 0);
    for (Entries e(a, g); e.left(); e.pass()) {
        TILE_LOAD(6, e.w, e.row);
        TILE_LOAD(4, x0 + *e.at, e.pixel);
        TILE_DOT(0, 4, 6);
        TILE_LOAD(5, x1 + *e.at, e.pixel);
        TILE_DOT(1, 5, 6);
        TILE_LOAD(4, x2 + *e.at, e.pixel);
        TILE_DOT(2, 4, 6);
        TILE_LOAD(5, x3 + *e.at, e.pixel);
        TILE_DOT(3, 5, 6);
    }
    TILE_STORE(0, sums, 64);
    TILE_STORE(1, sums + 256, 64);
    TILE_STORE(2, sums + 512, 64);
    TILE_STORE(3, sums + 768, 64);
    put<NARROW>(a, sums, y, g * 16, 4);
}

// 1 run x 16 lanes: 2 loads, 1 product.
void one_by_one(const Args& a, const float* const* x, Half* const* y, int64_t g) {
    alignas(64) float sums[16 * 16];
    const float *first = first_of(a, g * 16), *x0 = x[0];
    TILE_LOAD(0, first, 0);
    for (Entries e(a, g); e.left(); e.pass()) {
        TILE_LOAD(6, e.w, e.row);
        TILE_LOAD(4, x0 + *e.at, e.pixel);
        TILE_DOT(0, 4, 6);
    }
    TILE_STORE(0, sums, 64);
    put<NARROW>(a, sums, y, g * 16, 1);
}

struct Blocks {  // the engine of the walk
    static constexpr int64_t LONGEST = 16;
    Products tiles;

    explicit Blocks(const Args& a) : tiles(a.length, a.depth) {}
    static int64_t runs(int64_t lanes) { return lanes == 32 ? 2 : 4; }
    static Tile tile_of(int64_t lanes, int64_t runs, int64_t) {
        if (lanes == 32) return runs == 1 ? one_by_two : two_by_two;
        return runs == 1 ? one_by_one : four_by_one;
    }
};

}  // namespace

// 0, or the system's error where it does not let this process use tiles; asked once.
extern "C" int64_t campfire_blocks_amx_refused() { return tile_refusal(); }

// As of the kernel without tiles, but that an entry is `depth` pairs side by side: 16, or 8.
extern "C" void campfire_blocks_amx_conv(const int64_t* sizes, const Half* input, const int32_t* start, const int32_t* at,
                                         const float* value, int64_t lanes, const int32_t* in_order,
                                         const int32_t* out_order, const float* bias, const Half* residual, int64_t relu,
                                         Half* y, int64_t padded, int64_t pixel, int64_t strip, int64_t depth,
                                         int64_t side) {
    convolve<Blocks>(sizes, input, start, at, value, lanes, depth, in_order, out_order, bias, residual, relu, y, padded,
                     pixel, strip, side);
}
#endif
