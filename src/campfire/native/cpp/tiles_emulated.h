// The tile registers in C++, after Intel's Software Developer's Manual (LDTILECFG, TILELOADD, TILESTORED, TDPBF16PS).
//
// What the processor answers with a fault ends the process here, told on stderr. Not emulated: loads that are interrupted
// (start_row), which no program sees. Products, their rows, and loads are counted.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulated {

constexpr int TILES = 8, ROWS = 16, BYTES = 64;

struct Tile {
    int rows = 0, bytes = 0;
    alignas(64) unsigned char data[ROWS][BYTES] = {};  // zeros beyond rows and bytes
};

struct Counts {
    int64_t products, rows, loads;
};

static Counts counts{};

static inline void count(int64_t& what, int64_t more) { __atomic_fetch_add(&what, more, __ATOMIC_RELAXED); }

static thread_local bool configured = false;
static thread_local Tile tiles[TILES];

static inline void demand(bool fine, const char* what) {
    if (fine) return;
    std::fprintf(stderr, "tiles: %s\n", what);
    std::abort();
}

static inline void release() {
    for (Tile& t : tiles) t = Tile{};
    configured = false;
}

static inline void configure(const TileConfig& config) {
    release();
    demand(config.palette == 1 && config.start_row == 0, "the only palette is 1");
    for (unsigned char byte : config.reserved) demand(byte == 0, "reserved bytes are zero");
    for (int t = 0; t < 16; t++) {
        const int rows = config.rows[t], bytes = config.bytes[t];
        demand(t < TILES || (rows == 0 && bytes == 0), "there are 8 tiles");
        demand(rows <= ROWS && bytes <= BYTES && (rows == 0) == (bytes == 0), "a tile has up to 16 rows x 64 bytes");
        if (t < TILES) tiles[t].rows = rows, tiles[t].bytes = bytes;
    }
    configured = true;
}

static inline Tile& used(int t) {
    demand(configured, "used before they were configured");
    demand(tiles[t].rows > 0, "this tile has no shape");
    return tiles[t];
}

static inline void zero(int t) { std::memset(used(t).data, 0, sizeof(Tile::data)); }

static inline void load(int t, const void* from, int64_t step) {
    zero(t);
    count(counts.loads, 1);
    for (int i = 0; i < tiles[t].rows; i++) std::memcpy(tiles[t].data[i], (const char*)from + i * step, tiles[t].bytes);
}

static inline void store(int t, void* to, int64_t step) {
    const Tile& tile = used(t);
    for (int i = 0; i < tile.rows; i++) std::memcpy((char*)to + i * step, tile.data[i], tile.bytes);
}

// Denormal numbers are read and written as zeros.
static inline float flushed(float x) { return std::fabs(x) < FLT_MIN ? std::copysign(0.0f, x) : x; }

static inline void widen(const unsigned char* halves, float* even, float* odd) {
    for (int i = 0; i < ROWS; i++) {
        uint32_t pair, upper;
        std::memcpy(&pair, halves + 4 * i, 4);
        upper = pair & 0xffff0000u, pair <<= 16;
        std::memcpy(even + i, &pair, 4), std::memcpy(odd + i, &upper, 4);
        even[i] = flushed(even[i]), odd[i] = flushed(odd[i]);
    }
}

// A fused multiply-add: a product of two bfloat16 and a float32 add up exactly in a double, or one is too small to matter.
static inline float fused(float a, float b, float sum) { return flushed((float)((double)a * b + sum)); }

static inline void dot(int into, int left, int right) {
    Tile &c = used(into), &a = used(left), &b = used(right);
    demand(into != left && into != right && left != right, "three tiles take part");
    demand(c.bytes % 4 == 0 && a.bytes % 4 == 0, "rows are whole floats and pairs");
    demand(c.rows == a.rows && c.bytes == b.bytes && a.bytes == 4 * b.rows, "shapes do not match");
    count(counts.products, 1), count(counts.rows, c.rows);
    for (int m = 0; m < c.rows; m++) {
        float a_even[ROWS], a_odd[ROWS], even[ROWS] = {}, odd[ROWS] = {}, sums[ROWS];
        widen(a.data[m], a_even, a_odd);
        for (int k = 0; k < a.bytes / 4; k++) {
            float b_even[ROWS], b_odd[ROWS];
            widen(b.data[k], b_even, b_odd);
            for (int n = 0; n < ROWS; n++) {
                even[n] = fused(a_even[k], b_even[n], even[n]);
                odd[n] = fused(a_odd[k], b_odd[n], odd[n]);
            }
        }
        std::memcpy(sums, c.data[m], BYTES);
        for (int n = 0; n < ROWS; n++) sums[n] = flushed(flushed(sums[n]) + flushed(even[n] + odd[n]));
        std::memcpy(c.data[m], sums, c.bytes);
    }
}

}  // namespace emulated

// Products, their rows, and loads [3] since the last call.
extern "C" void campfire_tiles_counted(int64_t* to) {
    std::memcpy(to, &emulated::counts, sizeof emulated::counts);
    emulated::counts = {};
}
