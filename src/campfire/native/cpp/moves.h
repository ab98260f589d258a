// Channels of pixels in another order: 16 of the new order are put together from the vectors they stand in, one look-up of lanes
// for each of those. Where they are few that is half of what turning pixels over and back costs (permute.h).
#pragma once
#include <algorithm>
#include <cstdint>

#include "unroll.h"

// A table, as kernels/blocks/moves.py makes it, is [vectors + 1] places in it where a vector's entries begin, and the entries.
struct Move {  // the lanes of `mask` come from the 16 floats at `from`, lane l from their lane[l]
    int32_t from, mask;
    uint8_t lane[16];
};

template <int S, int P>
using Sixteen = Vec[S][P][16 / W];

// Vector v of S runs of P pixels, `apart` floats from pixel to pixel: 14 pixels share the reading of an entry.
template <int S, int P>
static inline void moved(const int32_t* table, int64_t v, const float* const* from, int64_t apart, Sixteen<S, P>& to) {
    const Move *m = (const Move*)(table + table[v]), *end = (const Move*)(table + table[v + 1]);
#if defined(__AVX512F__)
    UNROLL for (int s = 0; s < S; s++)
        UNROLL for (int p = 0; p < P; p++) to[s][p][0] = Vec{};
    for (; m < end; m++) {
        const __m512i lane = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)m->lane));
        UNROLL for (int s = 0; s < S; s++) {
            const float* f = from[s] + m->from;
            UNROLL for (int p = 0; p < P; p++) {
                const __m512 source = _mm512_loadu_ps(f + p * apart), old = (__m512)to[s][p][0];
                to[s][p][0] = (Vec)_mm512_mask_permutexvar_ps(old, (__mmask16)m->mask, lane, source);
            }
        }
    }
#else
    float lanes[S][P][16];
    for (; m < end; m++)
        for (int l = 0; l < 16; l++)
            for (int i = 0; i < S * P && m->mask >> l & 1; i++) lanes[i / P][i % P][l] = from[i / P][m->from + i % P * apart + m->lane[l]];
    for (int i = 0; i < S * P * (16 / W); i++) ((Vec*)to)[i] = load(lanes[0][0] + i * W);
#endif
}

template <int S, int P>
static void move_pixels(const int32_t* table, const float* from, int64_t from_pixel, float* to, int64_t to_pixel, int64_t v0, int64_t v1) {
    const float* const runs[] = {from, from + P * from_pixel};
    for (int64_t v = v0; v < v1; v++) {
        Sixteen<S, P> vector;
        moved<S, P>(table, v, runs, from_pixel, vector);
        UNROLL for (int i = 0; i < S * P; i++)
            UNROLL for (int h = 0; h < 16 / W; h++) store(to + i * to_pixel + v * 16 + h * W, vector[i / P][i % P][h]);
    }
}

// Vectors [v0, v1) of all pixels.
static inline void move(const int32_t* table, const float* from, int64_t from_pixel, float* to, int64_t to_pixel, int64_t pixels,
                        int64_t v0, int64_t v1) {
    int64_t p = 0;
    for (; p + 14 <= pixels; p += 14)
        move_pixels<2, 7>(table, from + p * from_pixel, from_pixel, to + p * to_pixel, to_pixel, v0, v1);
    for (; p + 4 <= pixels; p += 4)
        move_pixels<1, 4>(table, from + p * from_pixel, from_pixel, to + p * to_pixel, to_pixel, v0, v1);
    for (; p < pixels; p++) move_pixels<1, 1>(table, from + p * from_pixel, from_pixel, to + p * to_pixel, to_pixel, v0, v1);
}
