// 16 x 16 floats turned over: between pixels-of-channels and channels-of-pixels.
#pragma once
#include <cstdint>

#include "unroll.h"

// to[j * to_row + i] = from[i * from_row + j] for i < rows, j < columns, both at most 16.
static inline void turn_edge(const float* from, int64_t from_row, float* to, int64_t to_row, int64_t rows, int64_t columns) {
    for (int64_t j = 0; j < columns; j++)
        for (int64_t i = 0; i < rows; i++) to[j * to_row + i] = from[i * from_row + j];
}

#if defined(__AVX512F__)
typedef float V16 __attribute__((vector_size(64)));
typedef float V16U __attribute__((vector_size(64), aligned(4), may_alias));

// row(i): where row i begins; put(j, v) takes column j.
template <class Row, class Put>
static inline void turn16_to(Row row, Put put) {
    V16 a[16], b[16];
    UNROLL for (int i = 0; i < 16; i++) a[i] = *(const V16U*)row(i);
    UNROLL for (int i = 0; i < 16; i += 2) {
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
        UNROLL for (int j = 0; j < 2; j++) {
            V16 p = b[i + j], q = b[i + 2 + j];
            a[i + 2 * j] = __builtin_shufflevector(p, q, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
            a[i + 2 * j + 1] = __builtin_shufflevector(p, q, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
        }
    UNROLL for (int i = 0; i < 16; i += 8)
        UNROLL for (int j = 0; j < 4; j++) {
            V16 p = a[i + j], q = a[i + 4 + j];
            b[i + j] = __builtin_shufflevector(p, q, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
            b[i + 4 + j] = __builtin_shufflevector(p, q, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
        }
    UNROLL for (int j = 0; j < 8; j++) {
        V16 p = b[j], q = b[8 + j];
        put(j, __builtin_shufflevector(p, q, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
        put(8 + j, __builtin_shufflevector(p, q, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
    }
}
#endif

// to(j): where column j goes; PAST: past the caches.
template <bool PAST = false, class Row, class To>
static inline void turn16(Row row, To to) {
#if defined(__AVX512F__)
    turn16_to(row, [&](int j, V16 v) { PAST ? stream(to(j), v) : store(to(j), v); });
#else
    for (int j = 0; j < 16; j++) {
        float* t = to(j);
        for (int i = 0; i < 16; i++) t[i] = row(i)[j];
    }
#endif
}

template <class Row>
static inline void turn16(Row row, float* to, int64_t to_row) {
    turn16(row, [=](int j) { return to + j * to_row; });
}

// to[j * to_row + i] = from[i * from_row + j] for i < rows, j < columns.
static inline void turn(const float* from, int64_t from_row, float* to, int64_t to_row, int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows; i += 16)
        for (int64_t j = 0; j < columns; j += 16) {
            const float* f = from + i * from_row + j;
            float* t = to + j * to_row + i;
            if (i + 16 <= rows && j + 16 <= columns) turn16([&](int r) { return f + r * from_row; }, t, to_row);
            else turn_edge(f, from_row, t, to_row, rows - i < 16 ? rows - i : 16, columns - j < 16 ? columns - j : 16);
        }
}
