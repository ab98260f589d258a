// Batch normalisation over a batch-lane tensor, channel by channel: what one channel holds stays in the cache between
// the readings that its moments and its result need.
#pragma once

#include <type_traits>

#include "lanes_strip.h"

struct Shape {
  int32_t images, channels, pixels;
  int batches() const { return ceil_div(images, LANES); }
  int lanes(int batch) const { return least(LANES, images - batch * LANES); }
  int64_t at(int batch, int channel) const { return ((int64_t)batch * channels + channel) * pixels * LANES; }
  double count() const { return (double)images * pixels; }
};

constexpr int STRETCH = 128;  // lines summed in float before they join a sum in double

// Sums `terms` values of each line over the valid lanes of one channel: term(offset, out) adds vectors to out[terms].
template <int TERMS, typename F>
static inline void sum_channel(const Shape& shape, int channel, F term, double (&total)[TERMS]) {
  for (int t = 0; t < TERMS; t++) total[t] = 0;
  for (int b = 0; b < shape.batches(); b++)
    for (int from = 0; from < shape.pixels; from += STRETCH)
      for (int lane = 0; lane < LANES; lane += W) {
        const int until = least(shape.pixels, from + STRETCH);
        Vec sum[2][TERMS] = {};
        int64_t at = shape.at(b, channel) + (int64_t)from * LANES + lane;
        int i = from;
        for (; i + 2 <= until; i += 2, at += 2 * LANES) term(at, sum[0]), term(at + LANES, sum[1]);
        if (i < until) term(at, sum[0]);
        for (int t = 0; t < TERMS; t++)
          for (int j = 0; j < W && lane + j < shape.lanes(b); j++) total[t] += (double)sum[0][t][j] + (double)sum[1][t][j];
      }
}

static inline void moments(const Shape& shape, int channel, const float* x, float* mean, float* variance) {
  double first[1], second[1];
  sum_channel<1>(shape, channel, [&](int64_t at, Vec* sum) { sum[0] += load(x + at); }, first);
  const float centre = (float)(first[0] / shape.count());
  sum_channel<1>(shape, channel, [&](int64_t at, Vec* sum) {
    const Vec v = load(x + at) - splat(centre);
    sum[0] += v * v;
  }, second);
  *mean = centre, *variance = (float)(second[0] / shape.count());
}

// value in the lanes of images, zero beyond
static inline Vec in_lanes(const Shape& shape, int batch, int lane, float value) {
  Vec v{};
  for (int j = 0; j < W; j++) v[j] = lane + j < shape.lanes(batch) ? value : 0.f;
  return v;
}

// f(offset, a, b) over all vectors of a channel, with the constants a and b, which are zero in lanes beyond the images.
template <typename F>
static inline void over_channel(const Shape& shape, int channel, float a, float b, F f) {
  for (int batch = 0; batch < shape.batches(); batch++)
    for (int lane = 0; lane < LANES; lane += W) {
      const Vec first = in_lanes(shape, batch, lane, a), second = in_lanes(shape, batch, lane, b);
      const int64_t at = shape.at(batch, channel) + lane;
      for (int i = 0; i < shape.pixels; i++) f(at + (int64_t)i * LANES, first, second);
    }
}

static inline Vec positive(Vec v) { return v < 0 ? Vec{} : v; }

// y = x scale + shift (+ residual) (ReLU)
static inline void affine(const Shape& shape, int channel, const float* x, float scale, float shift,
                          const float* residual, bool relu, float* y) {
  const auto apply = [&](auto add, auto clip) {  // known when compiled: no choice in the loop
    over_channel(shape, channel, scale, shift, [&](int64_t at, Vec a, Vec b) {
      Vec v = load(x + at) * a + b;
      if (add) v += load(residual + at);
      store(y + at, clip ? positive(v) : v);
    });
  };
  const std::true_type yes;
  const std::false_type no;
  if (residual)
    relu ? apply(yes, yes) : apply(yes, no);
  else
    relu ? apply(no, yes) : apply(no, no);
}

struct NormGradient {
  Shape shape;
  const float *x, *y, *d_y, *mean, *inverse, *weight, *bias;  // y: null where there is no ReLU, or no residual before it
  bool relu;
  float *d_x, *d_residual, *d_weight, *d_bias;                // d_residual: null where there is none

  // d_y where the ReLU was open
  Vec open(int64_t at, Vec x_hat, Vec gamma, Vec beta) const {
    const Vec g = load(d_y + at);
    if (!relu) return g;
    const Vec out = y ? load(y + at) : x_hat * gamma + beta;
    return out > 0 ? g : Vec{};
  }

  void channel(int c) const {
    const Vec centre = splat(mean[c]), inv = splat(inverse[c]), gamma = splat(weight[c]), beta = splat(bias[c]);
    double sums[2];
    sum_channel<2>(shape, c, [&](int64_t at, Vec* sum) {
      const Vec x_hat = (load(x + at) - centre) * inv, g = open(at, x_hat, gamma, beta);
      sum[0] += g;
      sum[1] += g * x_hat;
    }, sums);
    d_bias[c] = (float)sums[0], d_weight[c] = (float)sums[1];
    const Vec level = splat((float)(sums[0] / shape.count())), slope = splat((float)(sums[1] / shape.count()));
    over_channel(shape, c, weight[c] * inverse[c], 0.f, [&](int64_t at, Vec scale, Vec) {
      const Vec x_hat = (load(x + at) - centre) * inv, g = open(at, x_hat, gamma, beta);
      if (d_residual) store(d_residual + at, g);
      store(d_x + at, scale * (g - level - x_hat * slope));
    });
  }
};
