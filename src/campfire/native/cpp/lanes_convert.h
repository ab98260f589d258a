// Between the library's layouts and the batch-lane layout: 16 x 16 transposes of images against pixels or channels.
#pragma once

#include "lanes_strip.h"

#if defined(__AVX512F__)
typedef int Lanes __attribute__((vector_size(64)));

// One step of a transpose: rows i and i + BIT exchange their off-diagonal halves of 2 BIT columns.
template <int BIT>
static inline void exchange(Vec (&v)[16]) {
  Lanes upper, lower;
  for (int j = 0; j < 16; j++) {
    upper[j] = j & BIT ? 16 + (j ^ BIT) : j;
    lower[j] = j & BIT ? 16 + j : j ^ BIT;
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++)
    if (!(i & BIT)) {
      const Vec a = v[i], b = v[i | BIT];
      v[i] = __builtin_shuffle(a, b, upper);
      v[i | BIT] = __builtin_shuffle(a, b, lower);
    }
}

static inline void transpose16(const float* from, int64_t from_pitch, float* to, int64_t to_pitch) {
  Vec v[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) v[i] = load(from + i * from_pitch);
  exchange<1>(v), exchange<2>(v), exchange<4>(v), exchange<8>(v);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) store(to + i * to_pitch, v[i]);
}
#else
static inline void transpose16(const float* from, int64_t from_pitch, float* to, int64_t to_pitch) {
  for (int j = 0; j < 16; j++)
    for (int i = 0; i < 16; i++) to[j * to_pitch + i] = from[i * from_pitch + j];
}
#endif

// to[j][i] = from[i][j] for i < rows <= 16, j < cols <= 16.
static inline void transpose(const float* from, int64_t from_pitch, float* to, int64_t to_pitch, int rows, int cols) {
  if (rows == 16 && cols == 16) return transpose16(from, from_pitch, to, to_pitch);
  for (int j = 0; j < cols; j++)
    for (int i = 0; i < rows; i++) to[j * to_pitch + i] = from[i * from_pitch + j];
}

// A tensor [images, channels, pixels] of the library: strides in floats, that of pixels or that of channels is 1.
struct Plain {
  int32_t images, channels, pixels;
  int64_t image, channel, pixel;
  bool by_pixel() const { return pixel == 1; }
};

// Visits 16 x 16 tiles: f(batch, channel, pixel, tile's images, channels or pixels in it).
template <typename F>
static inline void tiles(const Plain& t, F f) {
  const int batches = ceil_div(t.images, LANES);
  const int inner = t.by_pixel() ? t.pixels : t.channels, parts = ceil_div(inner, 16);
  const int outer = t.by_pixel() ? t.channels : t.pixels;
#pragma omp parallel for collapse(2) schedule(static)
  for (int b = 0; b < batches; b++)
    for (int i = 0; i < (t.by_pixel() ? outer : parts); i++) {
      const int images = least(LANES, t.images - b * LANES);
      const int steps = t.by_pixel() ? parts : outer;
      for (int j = 0; j < steps; j++) {
        const int part = (t.by_pixel() ? j : i) * 16, size = least(16, inner - part);
        if (t.by_pixel())
          f(b, i, part, images, size);
        else
          f(b, part, j, images, size);
      }
    }
}

static inline int64_t lane_at(const Plain& t, int batch, int channel, int pixel) {
  return (((int64_t)batch * t.channels + channel) * t.pixels + pixel) * LANES;
}
static inline int64_t plain_at(const Plain& t, int batch, int channel, int pixel) {
  return (int64_t)batch * LANES * t.image + channel * t.channel + pixel * t.pixel;
}

static inline void to_lanes(const Plain& t, const float* from, float* to) {
  const int64_t line = t.by_pixel() ? LANES : (int64_t)t.pixels * LANES;
  tiles(t, [&](int batch, int channel, int pixel, int images, int size) {
    float* lines = to + lane_at(t, batch, channel, pixel);
    if (images < LANES)
      for (int j = 0; j < size; j++) zero_lines(lines + j * line, 1);
    transpose(from + plain_at(t, batch, channel, pixel), t.image, lines, line, images, size);
  });
}

static inline void from_lanes(const Plain& t, const float* from, float* to) {
  const int64_t line = t.by_pixel() ? LANES : (int64_t)t.pixels * LANES;
  tiles(t, [&](int batch, int channel, int pixel, int images, int size) {
    transpose(from + lane_at(t, batch, channel, pixel), line, to + plain_at(t, batch, channel, pixel), t.image, size, images);
  });
}
