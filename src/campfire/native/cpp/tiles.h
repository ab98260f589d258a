// Tile registers (AMX): eight matrices of up to 16 rows x 64 bytes, and one instruction that multiplies two of them.
//
//   TILE_LOAD(t, from, step)   rows from memory, `step` bytes apart
//   TILE_STORE(t, to, step)    and back
//   TILE_ZERO(t)
//   TILE_DOT(c, a, b)          c[m][n] += sum over k of a[m][k] . b[k][n], of pairs of bfloat16, in float32
//
// t, a, b and c are literals, for the register is part of the instruction: the compiler neither allocates nor spills it.
// These are the processor's own in the flavour amx (CAMPFIRE_AMX), and their semantics in C++ with CAMPFIRE_EMULATE_TILES,
// so that tests run the kernels on any processor. CAMPFIRE_TILES is defined in both cases, and in no other.
#pragma once
#include <cstdint>

struct alignas(64) TileConfig {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];  // of a row of each tile
    uint8_t rows[16];
};

#if defined(CAMPFIRE_EMULATE_TILES)
#define CAMPFIRE_TILES
#include "tiles_emulated.h"
#define TILE_LOAD(t, from, step) emulated::load(t, from, step)
#define TILE_STORE(t, to, step) emulated::store(t, to, step)
#define TILE_ZERO(t) emulated::zero(t)
#define TILE_DOT(c, a, b) emulated::dot(c, a, b)

static inline void tile_configure(const TileConfig& config) { emulated::configure(config); }
static inline void tile_release() { emulated::release(); }
static inline void tile_settle() {}
static inline int64_t tile_refusal() { return 0; }

#elif defined(CAMPFIRE_AMX) && defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__linux__)
#define CAMPFIRE_TILES
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#define TILE_LOAD(t, from, step) _tile_loadd(t, from, step)
#define TILE_STORE(t, to, step) _tile_stored(t, to, step)
#define TILE_ZERO(t) _tile_zero(t)
#define TILE_DOT(c, a, b) _tile_dpbf16ps(c, a, b)

// gcc's loads of tiles do not tell the compiler that they read memory: what was stored before must have got there.
static inline void tile_settle() { asm volatile("" ::: "memory"); }

static inline void tile_configure(const TileConfig& config) {
    asm volatile("" ::"r"(&config) : "memory");
    _tile_loadconfig(&config);
}

static inline void tile_release() { _tile_release(); }

// The registers are 8 KB that the system must save at every switch: a process asks for them, once. 0, or the error.
static inline int64_t tile_refusal() {
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // asm/prctl.h, and the state component of XSAVE
    static const int64_t refusal = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) ? errno : 0;
    return refusal;
}
#endif

#if defined(CAMPFIRE_TILES)
// For as long as it lives, in its thread: sums [m][16] in tiles 0 to 3, left factors [m][depth pairs] in 4 and 5, right factors
// [depth][16 pairs] in 6 and 7. Then tiles are released, for other libraries configure their own, and an idle core rests deeper.
class Products {
  public:
    Products(int64_t m, int64_t depth) {
        TileConfig config{};
        config.palette = 1;
        for (int t = 0; t < 8; t++) {
            config.rows[t] = t < 6 ? m : depth;
            config.bytes[t] = t == 4 || t == 5 ? 4 * depth : 64;
        }
        tile_configure(config);
    }
    ~Products() { tile_release(); }
    Products(const Products&) = delete;
    Products& operator=(const Products&) = delete;
};
#endif
