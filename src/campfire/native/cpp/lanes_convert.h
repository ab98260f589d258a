// Between the library's memory formats and [channel][row][column][image]: 16 x 16 transposes.
#pragma once

#include <cstring>

#include "transpose.h"

// A tensor [images, channels, pixels] in one of the library's formats, channels or pixels running fastest.
struct Plain {
  int32_t images, channels, pixels;
  int64_t plane() const { return (int64_t)pixels * images; }
  // Where, with channels running fastest, the channels of float i of a plane [pixel][image] begin.
  int64_t channels_at(int64_t i) const { return (i % images * pixels + i / images) * channels; }
};

constexpr int64_t PART = 256;  // floats of each of 16 planes that one task turns
constexpr int64_t AHEAD = 64;  // floats between those that are turned and those that are fetched

// f(channel, how many, from, until) for tasks of up to 16 channels and PART floats of their planes; neighbouring channels
// follow each other, since they share pages.
template <typename F>
static inline void tasks(const Plain& t, F f) {
  const int64_t groups = (t.channels + 15) / 16, parts = (t.plane() + PART - 1) / PART;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < groups * parts; i++) {
    const int64_t channel = i % groups * 16, from = i / groups * PART;
    f(channel, channel + 16 < t.channels ? 16 : t.channels - channel, from, from + PART < t.plane() ? from + PART : t.plane());
  }
}

static inline void from_channels_last(const Plain& t, const float* from, float* to) {
  tasks(t, [&](int64_t channel, int64_t n, int64_t first, int64_t until) {
    for (int64_t i = first; i < until; i += 16) {
      float* target = to + channel * t.plane() + i;
      for (int r = 0; r < 16; r++) ahead(from + t.channels_at(i + AHEAD + r) + channel);
      if (n == 16 && i + 16 <= until)
        turn16([&](int r) { return from + t.channels_at(i + r) + channel; }, target, t.plane());
      else
        for (int64_t j = i; j < (i + 16 < until ? i + 16 : until); j++)
          for (int64_t c = 0; c < n; c++) target[c * t.plane() + j - i] = from[t.channels_at(j) + channel + c];
    }
  });
}

static inline void to_channels_last(const Plain& t, const float* from, float* to) {
  tasks(t, [&](int64_t channel, int64_t n, int64_t first, int64_t until) {
    alignas(64) float square[16 * 16];
    for (int64_t i = first; i < until; i += 16) {
      const int64_t lines = i + 16 < until ? 16 : until - i;
      const float* source = from + channel * t.plane() + i;
      for (int r = 0; r < 16; r++) ahead(to + t.channels_at(i + AHEAD + r) + channel);
      if (n == 16 && lines == 16)
        turn16([&](int r) { return source + r * t.plane(); }, square, 16);
      else
        turn_edge(source, t.plane(), square, 16, n, lines);
      for (int64_t j = 0; j < lines; j++) memcpy(to + t.channels_at(i + j) + channel, square + j * 16, sizeof(float) * n);
    }
  });
}

static inline void from_planes(const Plain& t, const float* from, float* to) {
#pragma omp parallel for schedule(static)
  for (int c = 0; c < t.channels; c++)
    turn(from + (int64_t)c * t.pixels, (int64_t)t.channels * t.pixels, to + c * t.plane(), t.images, t.images, t.pixels);
}

static inline void to_planes(const Plain& t, const float* from, float* to) {
#pragma omp parallel for schedule(static)
  for (int c = 0; c < t.channels; c++)
    turn(from + c * t.plane(), t.images, to + (int64_t)c * t.pixels, (int64_t)t.channels * t.pixels, t.pixels, t.images);
}
