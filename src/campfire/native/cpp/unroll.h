// Loops over registers, and memory hints.
#pragma once

#include "vector.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define UNROLL _Pragma("GCC unroll 32")

// Past the caches, where a vector is a whole cache line: for results that no cache would hold until they are read.
static inline void stream(float* p, Vec v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(p, (__m512)v);
#else
    store(p, v);
#endif
}

// After streams: what follows in this thread, its word that it is done above all, is seen after them.
static inline void fence() {
#if defined(__AVX512F__)
    _mm_sfence();
#endif
}

// Into the second cache: for lines that lie too far apart for the processor to foresee.
static inline void ahead(const void* p) { __builtin_prefetch(p, 0, 2); }

// A value that stays in a register: the compiler would else load it again with each FMA, and loads are what is scarce.
static inline Vec held(Vec v) {
#if defined(__AVX2__)
    asm("" : "+v"(v));
#endif
    return v;
}
