// Walks through weights and their masks, in loops that compilers turn into vectors.
#pragma once
#include "vector.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

// out = x times a mask of bytes, 0 or 1.
inline void times(const float* x, const uint8_t* mask, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i++) out[i] = x[i] * float(mask[i]);
}

typedef int32_t Bits __attribute__((vector_size(W * 4)));
typedef uint8_t Flags __attribute__((vector_size(W), aligned(1), may_alias));

inline bool any(Bits x) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)x, (__m512i)x);
#else
  int32_t all = 0;
  for (int j = 0; j < W; j++) all |= x[j];
  return all;
#endif
}

// The same in place. What stays as it is is not written: most of what is to be zero is zero already.
inline void times_in_place(float* x, const uint8_t* mask, int64_t n) {
  int64_t i = 0;
  for (; i + W <= n; i += W) {
    const Vec old = load(x + i), now = old * __builtin_convertvector(*(const Flags*)(mask + i), Vec);
    if (any((Bits)old ^ (Bits)now)) store(x + i, now);
  }
  for (; i < n; i++) x[i] *= float(mask[i]);
}

// The same of what has been multiplied by another mask: only where the two differ is there anything to do, or to read.
inline void times_where_new(float* x, const uint8_t* mask, const uint8_t* was, int64_t n) {
  constexpr int64_t LINE = 64;
  int64_t i = 0;
  for (; i + LINE <= n; i += LINE)
    if (memcmp(mask + i, was + i, LINE)) times_in_place(x + i, mask + i, LINE);
  times_in_place(x + i, mask + i, n - i);
}

// |w| of one output, [T, C] -> [C, T].
inline void turn_magnitudes(const float* w, int64_t C, int64_t T, float* out) {
  for (int64_t t = 0; t < T; t++)
    for (int64_t c = 0; c < C; c++) out[c * T + t] = std::fabs(w[t * C + c]);
}

// A mask of one output, [C, T] -> [T, C].
inline void turn_mask(const uint8_t* mask, int64_t C, int64_t T, uint8_t* out) {
  if (T == 9)  // a number that the compiler knows: three times as fast
    for (int64_t c = 0; c < C; c++)
      for (int64_t t = 0; t < 9; t++) out[t * C + c] = mask[c * 9 + t];
  else
    for (int64_t c = 0; c < C; c++)
      for (int64_t t = 0; t < T; t++) out[t * C + c] = mask[c * T + t];
}

// The largest |w| of each of C kernels of T weights; NaN is above all.
inline void largest(const float* w, int64_t C, int64_t T, int64_t of_kernel, int64_t of_tap, float* best) {
  for (int64_t c = 0; c < C; c++) best[c] = std::fabs(w[c * of_kernel]);
  for (int64_t t = 1; t < T; t++)
    for (int64_t c = 0; c < C; c++) {
      float x = std::fabs(w[c * of_kernel + t * of_tap]), y = best[c];
      best[c] = y >= x ? y : x == x && y != y ? y : x;
    }
}

}  // namespace
