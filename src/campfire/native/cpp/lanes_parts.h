// Few images as the lanes of one vector: each is cut into a grid of parts, which may overlap and reach beyond it.
#pragma once

#include <cstring>

#include "transpose.h"

// [channel][row][column][image] beside [channel][row of a part][column of a part][16: part, image].
struct Parts {
  int32_t images, channels, height, width;
  int32_t grid_high, grid_wide;  // parts; images x parts <= 16
  int32_t high, wide;            // of a part
  int32_t down, right;           // from one part to the next, in pixels
  int32_t top, left;             // of the first part

  int count() const { return grid_high * grid_wide; }
  int64_t plane() const { return (int64_t)height * width * images; }
  int64_t part() const { return (int64_t)high * wide * images; }

  // f(place in the part, place in the image, how many floats) for every row that both have.
  template <typename F>
  void rows(int t, F f) const {
    const int row = t / grid_wide * down + top, col = t % grid_wide * right + left;
    const int from = col < 0 ? -col : 0, until = col + wide < width ? wide : width - col;
    if (until <= from) return;
    for (int i = row < 0 ? -row : 0; i < high && row + i < height; i++)
      f(((int64_t)i * wide + from) * images, ((int64_t)(row + i) * width + col + from) * images, (until - from) * images);
  }
};

// lanes[pixel][part][image] = stage[part][pixel][image], zero in other lanes; N: the number of images, 0: any.
template <int N>
static inline void together(const Parts& p, const float* stage, float* lanes) {
  const int images = N ? N : p.images, used = images * p.count();
  for (int64_t pixel = 0; pixel < p.part() / images; pixel++, lanes += 16) {
    for (int t = 0; t < p.count(); t++) memcpy(lanes + t * images, stage + t * p.part() + pixel * images, sizeof(float) * images);
    for (int i = used; i < 16; i++) lanes[i] = 0;
  }
}

template <int N>
static inline void apart(const Parts& p, const float* lanes, float* stage) {
  const int images = N ? N : p.images;
  for (int64_t pixel = 0; pixel < p.part() / images; pixel++, lanes += 16)
    for (int t = 0; t < p.count(); t++) memcpy(stage + t * p.part() + pixel * images, lanes + t * images, sizeof(float) * images);
}

static inline void together(const Parts& p, const float* stage, float* lanes) {
  switch (p.images) {
    case 1: return turn(stage, p.part(), lanes, 16, 16, p.part());
    case 2: return together<2>(p, stage, lanes);
    case 4: return together<4>(p, stage, lanes);
    case 8: return together<8>(p, stage, lanes);
    default: return together<0>(p, stage, lanes);
  }
}

static inline void apart(const Parts& p, const float* lanes, float* stage) {
  switch (p.images) {
    case 1: return turn(lanes, 16, stage, p.part(), p.part(), 16);
    case 2: return apart<2>(p, lanes, stage);
    case 4: return apart<4>(p, lanes, stage);
    case 8: return apart<8>(p, lanes, stage);
    default: return apart<0>(p, lanes, stage);
  }
}

// The parts of one channel; zero beyond the image.
static inline void cut(const Parts& p, const float* plane, float* stage, float* lanes) {
  memset(stage, 0, sizeof(float) * p.part() * p.count());
  for (int t = 0; t < p.count(); t++)
    p.rows(t, [&](int64_t part, int64_t image, int n) { memcpy(stage + t * p.part() + part, plane + image, sizeof(float) * n); });
  together(p, stage, lanes);
}

// The inverse, for parts that do not overlap; then plus a residual, then ReLU.
static inline void join(const Parts& p, const float* lanes, float* stage, const float* residual, bool relu, float* plane) {
  apart(p, lanes, stage);
  for (int t = 0; t < p.count(); t++)
    p.rows(t, [&](int64_t part, int64_t image, int n) {
      const float* from = stage + t * p.part() + part;
      if (!residual && !relu) {
        memcpy(plane + image, from, sizeof(float) * n);
        return;
      }
      for (int i = 0; i < n; i++) {
        const float v = residual ? from[i] + residual[image + i] : from[i];
        plane[image + i] = relu && v < 0 ? 0.f : v;
      }
    });
}
