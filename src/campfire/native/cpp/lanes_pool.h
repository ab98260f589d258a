// Pooling in the batch-lane layout: maxima with the tap that won, and the mean over all pixels.
#pragma once

#include "lanes_strip.h"

struct Window {
  int32_t planes;  // images / 16 * channels
  int32_t height, width, out_height, out_width;
  int32_t size, stride, padding;

  // The outputs whose window holds row or column i: [first, last].
  int first(int i) const { return i + padding < size ? 0 : (i + padding - size) / stride + 1; }
  int last(int i, int outputs) const { return least((i + padding) / stride, outputs - 1); }
};

typedef int32_t Ints __attribute__((vector_size(W * 4)));
typedef uint8_t Bytes __attribute__((vector_size(W), aligned(1), may_alias));

// The greatest value under the window and its tap; a NaN wins, and of equals the first.
static inline void greatest(const Window& w, const float* plane, int row, int col, int lane, float* y, uint8_t* tap) {
  Vec best{};
  Ints winner = Ints{} - 1;
  for (int t = 0; t < w.size * w.size; t++) {
    const int h = row * w.stride - w.padding + t / w.size, v = col * w.stride - w.padding + t % w.size;
    if (h < 0 || h >= w.height || v < 0 || v >= w.width) continue;
    const Vec x = load(plane + ((int64_t)h * w.width + v) * LANES + lane);
    const Ints wins = (winner < 0) | (x > best) | (x != x);
    best = wins ? x : best;
    winner = wins ? Ints{} + t : winner;
  }
  store(y, best);
  *(Bytes*)tap = __builtin_convertvector(winner, Bytes);
}

static inline void max_plane(const Window& w, const float* x, float* y, uint8_t* taps) {
  for (int row = 0; row < w.out_height; row++)
    for (int col = 0; col < w.out_width; col++, y += LANES, taps += LANES)
      for (int lane = 0; lane < LANES; lane += W) greatest(w, x, row, col, lane, y + lane, taps + lane);
}

// Every input gathers from the windows it won: no two threads and no two orders write one place.
static inline Vec won(const Window& w, const float* d_y, const uint8_t* taps, int row, int col, int lane) {
  Vec sum{};
  for (int i = w.first(row); i <= w.last(row, w.out_height); i++)
    for (int j = w.first(col); j <= w.last(col, w.out_width); j++) {
      const int tap = (row + w.padding - i * w.stride) * w.size + col + w.padding - j * w.stride;
      const int64_t at = ((int64_t)i * w.out_width + j) * LANES + lane;
      const Ints winner = __builtin_convertvector(*(const Bytes*)(taps + at), Ints);
      sum += winner == tap ? load(d_y + at) : Vec{};
    }
  return sum;
}

static inline void max_plane_back(const Window& w, const float* d_y, const uint8_t* taps, float* d_x) {
  for (int row = 0; row < w.height; row++)
    for (int col = 0; col < w.width; col++, d_x += LANES)
      for (int lane = 0; lane < LANES; lane += W) store(d_x + lane, won(w, d_y, taps, row, col, lane));
}

static inline void mean_plane(const float* x, int pixels, float* y) {
  for (int lane = 0; lane < LANES; lane += W) {
    Vec sum{};
    for (int i = 0; i < pixels; i++) sum += load(x + (int64_t)i * LANES + lane);
    store(y + lane, sum / (float)pixels);
  }
}

static inline void mean_plane_back(const float* d_y, int pixels, float* d_x) {
  for (int lane = 0; lane < LANES; lane += W) {
    const Vec share = load(d_y + lane) / (float)pixels;
    for (int i = 0; i < pixels; i++) store(d_x + (int64_t)i * LANES + lane, share);
  }
}
