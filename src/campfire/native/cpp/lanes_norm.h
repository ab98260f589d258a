// Batch normalisation of tensors [channel][row][column][image]: a channel is one stretch of floats, which stays in the
// cache between the readings that its moments and its result need.
#pragma once

#include "vector.h"

constexpr int STRETCH = 2048;  // floats summed as floats before they join a sum in double
constexpr int CHAINS = 4;      // of sums, to hide their latency

template <typename T>
static inline T read(const float* p);
template <>
inline float read<float>(const float* p) { return *p; }
template <>
inline Vec read<Vec>(const float* p) { return load(p); }
static inline void write(float* p, float x) { *p = x; }
static inline void write(float* p, Vec x) { store(p, x); }

// f(zero, i) for all i < n; zero tells the type: a vector, or a float of the rest.
template <typename F>
static inline void over(int64_t n, F f) {
  int64_t i = 0;
  for (; i + W <= n; i += W) f(Vec{}, i);
  for (; i < n; i++) f(0.f, i);
}

// Sums of TERMS values: f(zero, i, sum) adds them to sum[0 .. TERMS).
template <int TERMS, typename F>
static inline void sums_of(int64_t n, F f, double (&total)[TERMS]) {
  for (int t = 0; t < TERMS; t++) total[t] = 0;
  for (int64_t from = 0; from < n; from += STRETCH) {
    const int64_t until = from + STRETCH < n ? from + STRETCH : n;
    Vec sum[CHAINS][TERMS] = {};
    float rest[TERMS] = {};
    int64_t i = from;
    for (; i + CHAINS * W <= until; i += CHAINS * W)
      for (int c = 0; c < CHAINS; c++) f(Vec{}, i + c * W, sum[c]);
    for (; i + W <= until; i += W) f(Vec{}, i, sum[0]);
    for (; i < until; i++) f(0.f, i, rest);
    for (int t = 0; t < TERMS; t++) {
      for (int c = 0; c < CHAINS; c++)
        for (int j = 0; j < W; j++) total[t] += (double)sum[c][t][j];
      total[t] += (double)rest[t];
    }
  }
}

// The mean of n floats, and their variance divided by n.
static inline void moments(const float* x, int64_t n, float* mean, float* variance) {
  double first[1], second[1];
  sums_of<1>(n, [&](auto zero, int64_t i, auto* sum) { sum[0] += read<decltype(zero)>(x + i); }, first);
  const float centre = (float)(first[0] / (double)n);
  sums_of<1>(n, [&](auto zero, int64_t i, auto* sum) {
    const auto v = read<decltype(zero)>(x + i) - centre;
    sum[0] += v * v;
  }, second);
  *mean = centre, *variance = (float)(second[0] / (double)n);
}

static inline void affine(const float* x, int64_t n, float scale, float shift, float* y) {
  over(n, [&](auto zero, int64_t i) { write(y + i, read<decltype(zero)>(x + i) * scale + shift); });
}

// d_x of one channel, and the sums that are the gradients of weight and bias; inverse: 1 / sqrt(variance + eps).
static inline void norm_back(const float* x, const float* d_y, int64_t n, float mean, float inverse, float weight,
                             float* d_x, float* d_weight, float* d_bias) {
  double sums[2];
  sums_of<2>(n, [&](auto zero, int64_t i, auto* sum) {
    const auto g = read<decltype(zero)>(d_y + i);
    sum[0] += g;
    sum[1] += g * ((read<decltype(zero)>(x + i) - mean) * inverse);
  }, sums);
  *d_bias = (float)sums[0], *d_weight = (float)sums[1];
  const float level = (float)(sums[0] / (double)n), slope = (float)(sums[1] / (double)n), scale = weight * inverse;
  over(n, [&](auto zero, int64_t i) {
    using T = decltype(zero);
    const T x_hat = (read<T>(x + i) - mean) * inverse;
    write(d_x + i, scale * (read<T>(d_y + i) - level - x_hat * slope));
  });
}
