// Vectors of W floats, written once for every flavour with the compiler's vector extensions.
//
// The compiler turns `a += b * c` into one fused multiply-add where the flavour has it. Intrinsics stand under #ifdef,
// only where they were measured to matter. A block of 16 floats is 16 / W vectors.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float Vec __attribute__((vector_size(W * 4)));
typedef float VecU __attribute__((vector_size(W * 4), aligned(4), may_alias));  // anywhere in memory

static inline Vec load(const float* p) { return *(const VecU*)p; }
static inline void store(float* p, Vec v) { *(VecU*)p = v; }
static inline Vec splat(float x) { return x - Vec{}; }
