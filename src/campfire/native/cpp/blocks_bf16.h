// bfloat16 for the block kernels: two values side by side are one float's room, and one instruction multiplies both.
//
// The processor's dot product takes pairs: sum[i] += a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1], in float32. So wherever two
// numbers that are summed over lie side by side (two input channels of a pixel, two outputs of a gradient), the kernels
// move them as one float: a copy, a broadcast and a transposition of floats carry pairs.
#pragma once
#include "conv.h"
#include "transpose.h"

struct Sizes {  // int64 each, as the Python side passes them
    int64_t N, H, Wd, C;          // input: images, height, width, channels
    int64_t K, high, wide;        // output: channels, height, width
    int64_t rows, columns;        // outputs of this call in each image: one in `apart` rows and columns
    int64_t apart, down, right;   // of them, from row `down` and column `right` on
    int64_t step, before, reach;  // input rows from one output to the next; above the first; that an output reads
    int64_t threads;

    // A 1x1 convolution whose pixels, of all images, are one long row.
    bool flat() const {
        return reach == 1 && step == 1 && before == 0 && apart == 1 && rows == H && columns == Wd;
    }
};

typedef uint16_t Half;  // a bfloat16: the upper half of a float

#if defined(__AVX512BF16__)

static inline Vec dot(Vec sum, Vec a, Vec b) { return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }

// The larger; a NaN in v stays.
static inline Vec at_least(Vec least, Vec v) { return (Vec)_mm512_max_ps((__m512)least, (__m512)v); }

// 16 numbers as floats, and back: to the nearest, ties to even.
static inline Vec widen(const Half* p) {
    return (Vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
}

static inline void narrow(Half* p, Vec v) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh((__m512)v)); }

// 32 at once: a whole cache line.
static inline void narrow(Half* p, Vec low, Vec high, bool past) {
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    if (past) _mm512_stream_si512((__m512i*)p, both);
    else _mm512_storeu_si512(p, both);
}

// a[0] b[0] a[1] b[1] .. a[15] b[15].
static inline Vec paired(const Half* a, const Half* b) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)a));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)b));
    return (Vec)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Two vectors of numbers as pairs: narrow(low[0]) narrow(high[0]) narrow(low[1]) ..
static inline Vec narrow_pairs(Vec low, Vec high) {
    alignas(64) static const uint16_t order[] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    return (Vec)_mm512_permutexvar_epi16(_mm512_load_si512(order), both);
}

#else  // for kernels that do not live by dot products of vectors

static inline Vec at_least(Vec least, Vec v) { return v < least ? least : v; }

static inline Vec widen(const Half* p) {
    uint32_t bits[W];
    for (int i = 0; i < W; i++) bits[i] = (uint32_t)p[i] << 16;
    Vec v;
    std::memcpy(&v, bits, sizeof v);
    return v;
}

static inline void narrow(Half* p, Vec v) {
    uint32_t bits[W];
    std::memcpy(bits, &v, sizeof v);
    for (int i = 0; i < W; i++)
        p[i] = v[i] != v[i] ? bits[i] >> 16 | 0x40 : (bits[i] + 0x7fff + (bits[i] >> 16 & 1)) >> 16;
}

static inline void narrow(Half* p, Vec low, Vec high, bool) { narrow(p, low), narrow(p + W, high); }

static inline Vec paired(const Half* a, const Half* b) {
    Half both[2 * W];
    for (int i = 0; i < W; i++) both[2 * i] = a[i], both[2 * i + 1] = b[i];
    Vec v;
    std::memcpy(&v, both, sizeof v);
    return v;
}

#endif

// Halves [n] in another order, to[j] = from[index[j]], for many pixels with one index: tables of 64 halves are looked up one
// after the other, each for the places it holds.
class Shuffle {
  public:
    Shuffle(const int32_t* index, int64_t n) : index(index), n(n), tables((n + 63) / 64) {
        if (!index || n % 32) return;
        masks.resize(n / 32 * tables), places.resize(n);
        for (int64_t j = 0; j < n; j++) {
            places[j] = index[j] % 64;
            masks[j / 32 * tables + index[j] / 64] |= 1u << j % 32;
        }
    }

    void operator()(Half* to, int64_t to_row, const Half* from, int64_t from_row, int64_t pixels) const {
        int64_t p = 0;
#if defined(__AVX512BF16__)
        if (n % 32 == 0)
            for (; p + 4 <= pixels; p += 4) some<4>(to + p * to_row, to_row, from + p * from_row, from_row);
        for (; p < pixels && n % 32 == 0; p++) some<1>(to + p * to_row, to_row, from + p * from_row, from_row);
#endif
        for (; p < pixels; p++)
            for (int64_t j = 0; j < n; j++) to[p * to_row + j] = from[p * from_row + index[j]];
    }

  private:
    const int32_t* index;
    int64_t n, tables;
    std::vector<uint32_t> masks;
    std::vector<Half> places;

#if defined(__AVX512BF16__)
    template <int P>
    void some(Half* to, int64_t to_row, const Half* from, int64_t from_row) const {
        for (int64_t o = 0; o < n; o += 32) {
            __m512i found[P];
            UNROLL for (int p = 0; p < P; p++) found[p] = _mm512_loadu_si512(&places[o]);
            for (int64_t t = 0; t < tables; t++) {
                const uint32_t mask = masks[o / 32 * tables + t];
                const int64_t upper = t * 64 + 32 < n ? 32 : 0;
                if (mask)
                    UNROLL for (int p = 0; p < P; p++) {
                        const Half* table = from + p * from_row + t * 64;
                        found[p] = _mm512_mask2_permutex2var_epi16(_mm512_loadu_si512(table), found[p], mask,
                                                                   _mm512_loadu_si512(table + upper));
                    }
            }
            UNROLL for (int p = 0; p < P; p++) _mm512_storeu_si512(to + p * to_row + o, found[p]);
        }
    }
#endif
};
