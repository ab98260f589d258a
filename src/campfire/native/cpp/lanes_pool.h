// Maxima under windows of tensors [channel][row][column][image], with the tap that won.
#pragma once

#include <cstring>

#include "vector.h"

struct Window {
  int32_t images, channels, height, width, out_height, out_width;
  int32_t size, stride, padding;

  int64_t in_plane() const { return (int64_t)height * width * images; }
  int64_t out_plane() const { return (int64_t)out_height * out_width * images; }
  // The outputs whose window holds row or column i: [first, last].
  int first(int i) const { return i + padding < size ? 0 : (i + padding - size) / stride + 1; }
  int last(int i, int outputs) const { return (i + padding) / stride < outputs ? (i + padding) / stride : outputs - 1; }
};

typedef int32_t Ints __attribute__((vector_size(W * 4)));
typedef uint8_t Bytes __attribute__((vector_size(W)));

// The first `n` numbers at p; a whole vector where n is W or more.
template <typename V, typename T>
static inline V first_of(const T* p, int n) {
  V v{};
  if (n >= W)
    memcpy(&v, p, sizeof v);
  else
    memcpy(&v, p, sizeof(T) * n);
  return v;
}

template <typename V, typename T>
static inline void put_first(T* p, V v, int n) {
  if (n >= W)
    memcpy(p, &v, sizeof v);
  else
    memcpy(p, &v, sizeof(T) * n);
}

// The greatest value under the window, of n images from `plane` on, and its tap; a NaN wins, and of equals the first.
static inline void greatest(const Window& w, const float* plane, int row, int col, int n, float* y, uint8_t* tap) {
  Vec best{};
  Ints winner = Ints{} - 1;
  for (int t = 0; t < w.size * w.size; t++) {
    const int h = row * w.stride - w.padding + t / w.size, v = col * w.stride - w.padding + t % w.size;
    if (h < 0 || h >= w.height || v < 0 || v >= w.width) continue;
    const Vec x = first_of<Vec>(plane + ((int64_t)h * w.width + v) * w.images, n);
    const Ints wins = (winner < 0) | (x > best) | (x != x);
    best = wins ? x : best;
    winner = wins ? Ints{} + t : winner;
  }
  put_first(y, best, n);
  put_first(tap, __builtin_convertvector(winner, Bytes), n);
}

static inline void max_plane(const Window& w, const float* x, float* y, uint8_t* taps) {
  for (int row = 0; row < w.out_height; row++)
    for (int col = 0; col < w.out_width; col++, y += w.images, taps += w.images)
      for (int i = 0; i < w.images; i += W) greatest(w, x + i, row, col, w.images - i, y + i, taps + i);
}

// Every input gathers from the windows it won: no two threads and no two orders write one place.
static inline Vec won(const Window& w, const float* d_y, const uint8_t* taps, int row, int col, int n) {
  Vec sum{};
  for (int i = w.first(row); i <= w.last(row, w.out_height); i++)
    for (int j = w.first(col); j <= w.last(col, w.out_width); j++) {
      const int tap = (row + w.padding - i * w.stride) * w.size + col + w.padding - j * w.stride;
      const int64_t at = ((int64_t)i * w.out_width + j) * w.images;
      const Ints winner = __builtin_convertvector(first_of<Bytes>(taps + at, n), Ints);
      sum += winner == tap ? first_of<Vec>(d_y + at, n) : Vec{};
    }
  return sum;
}

static inline void max_plane_back(const Window& w, const float* d_y, const uint8_t* taps, float* d_x) {
  for (int row = 0; row < w.height; row++)
    for (int col = 0; col < w.width; col++, d_x += w.images)
      for (int i = 0; i < w.images; i += W)
        put_first(d_x + i, won(w, d_y + i, taps + i, row, col, w.images - i), w.images - i);
}
