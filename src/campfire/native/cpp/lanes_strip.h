// Tensors lie in memory as [channel][row][column][image], and 16 images make the lanes of one vector.
//
// A strip: what one tile of outputs reads of a block of channels, zero-padded and contiguous, [channel][line][16 images].
// Reads are then aligned and know no borders. A stride is unfolded into phases, so that the pixels which neighbouring
// outputs read under one tap are neighbours: the register tiles see a step of one line, whatever the stride.
#pragma once

#include <cstdlib>
#include <cstring>

#include "vector.h"

constexpr int LANES = 16;

// One pass over a layer; campfire/kernels/lanes/plan.py mirrors it field by field.
struct Pass {
  int32_t images;                               // floats from one pixel to the next
  int32_t in_channels, in_height, in_width;     // the tensor read through strips
  int32_t out_channels, out_height, out_width;  // the tensor held in registers
  int32_t taps_high, taps_wide;                 // taps that a strip spans
  int32_t step;                                 // input pixels from one output of a tile to the next
  int32_t top, left;                            // input row and column under the first tap of output 0
  int32_t spread;                               // outputs of a tile are this far apart: spread^2 classes of outputs
  int32_t rows, cols;                           // the register tile
  int32_t block;                                // channels in a strip
  int32_t whole;                                // 1: survivors are whole 3 x 3 kernels; 0: single weights
  int32_t last;                                 // images of the last pixel, where `images` is 16; else 16
};

static inline int ceil_div(int a, int b) { return (a + b - 1) / b; }
static inline int least(int a, int b) { return a < b ? a : b; }
static inline int most(int a, int b) { return a > b ? a : b; }

static inline int pitch_of(const Pass& p) { return p.cols + (p.taps_wide - 1) / p.step; }
static inline int phase_rows(const Pass& p, int phase) { return p.rows + (p.taps_high - 1 - phase) / p.step; }
static inline int lines_of(const Pass& p) {
  int rows = 0;
  for (int phase = 0; phase < least(p.taps_high, p.step); phase++) rows += phase_rows(p, phase);
  return rows * least(p.taps_wide, p.step) * pitch_of(p);
}
static inline int blocks_of(const Pass& p) { return ceil_div(p.in_channels, p.block); }
static inline int batches_of(const Pass& p) { return ceil_div(p.images, LANES); }
// Floats of a channel.
static inline int64_t plane_of(const Pass& p, int height, int width) {
  return (int64_t)height * width * p.images - LANES + p.last;
}

static inline void zero_lines(float* to, int n) {
  if (n > 0) memset(to, 0, sizeof(float) * LANES * n);
}

// A line of which memory holds the first `lanes`; the others are zero.
static inline void copy_line(float* to, const float* from, int lanes) {
  for (int i = 0; i < LANES; i++) to[i] = i < lanes ? from[i] : 0.f;
}

// Where a tile stands: its 16 images, its first output of class 0, and as many rows as it has there.
struct Place {
  int batch, row, col, rows;
  // Images there are from its first on, 16 or more where all of its lanes are; at_end: under the last pixel.
  int lanes(const Pass& p, bool at_end) const {
    const int rest = p.images - batch * LANES;
    return at_end ? least(p.last, rest) : rest;
  }
};

// One row of one phase: `pitch` lines from column `start` on, `step` apart; those outside the image are zero.
static inline void pack_row(const Pass& p, const Place& at, float* to, const float* row, int pitch, int start) {
  const int step = p.step, width = p.in_width;
  const int from = least(start < 0 ? ceil_div(-start, step) : 0, pitch);
  const int until = most(from, least(width > start ? ceil_div(width - start, step) : 0, pitch));
  zero_lines(to, from);
  const float* pixel = row + (int64_t)(start + from * step) * p.images;
  const int64_t next = (int64_t)step * p.images;
  const bool ends = until > from && start + (until - 1) * step == width - 1;
  const int whole = at.lanes(p, false) < LANES ? from : until - (ends && p.last < LANES);
  int j = from;
  for (; j < whole; j++, pixel += next)
    for (int i = 0; i < LANES; i += W) store(to + j * LANES + i, load(pixel + i));
  for (; j < until; j++, pixel += next) copy_line(to + j * LANES, pixel, at.lanes(p, j + 1 == until && ends));
  zero_lines(to + until * LANES, pitch - until);
}

static inline float* pack_channel(const Pass& p, const float* plane, const Place& at, float* to) {
  const int pitch = pitch_of(p), less = p.rows - at.rows;
  for (int down = 0; down < least(p.taps_high, p.step); down++)
    for (int right = 0; right < least(p.taps_wide, p.step); right++) {
      const int rows = phase_rows(p, down), start = at.col * p.step + p.left + right;
      for (int i = 0; i < rows - less; i++) {
        const int h = (at.row + i) * p.step + p.top + down;
        if (h < 0 || h >= p.in_height)
          zero_lines(to + i * pitch * LANES, pitch);
        else
          pack_row(p, at, to + i * pitch * LANES, plane + (int64_t)h * p.in_width * p.images, pitch, start);
      }
      to += rows * pitch * LANES;
    }
  return to;
}

// The strip of one block of channels.
static inline void pack_strip(const Pass& p, const float* x, int block, const Place& at, float* to) {
  const int64_t plane = plane_of(p, p.in_height, p.in_width);
  const int last = least(p.in_channels, (block + 1) * p.block);
  x += at.batch * LANES;
  for (int c = block * p.block; c < last; c++) to = pack_channel(p, x + c * plane, at, to);
}

// Brings what the next strip will be packed from into the second-level cache, a few rows at a time: memory answers only
// so many reads at once, and whoever asks for more waits.
class Ahead {
 public:
  Ahead() = default;
  Ahead(const Pass& p, const float* x, int block, const Place& at, int steps)
      : row(at.row * p.step + p.top), until(row + (at.rows - 1) * p.step + p.taps_high), pixel(p.images), down((int64_t)p.in_width * p.images), plane(plane_of(p, p.in_height, p.in_width)) {
    const int start = at.col * p.step + p.left, end = start + (p.cols - 1) * p.step + p.taps_wide;
    left = most(0, start), right = least(p.in_width, end), row = most(0, row), until = least(p.in_height, until);
    channels = most(0, least(p.block, p.in_channels - block * p.block));
    channel = x + at.batch * LANES + (int64_t)block * p.block * plane;
    first = h = row, rows = ceil_div(most(0, until - row) * channels, steps);
  }

  bool busy() const { return channels > 0; }

  __attribute__((noinline)) void step() {
    for (int i = 0; i < rows && channels > 0; i++) {
      const float* line = channel + h * down + (int64_t)left * pixel;
      for (int j = left; j < right; j++, line += pixel) __builtin_prefetch(line, 0, 2);
      if (++h >= until) h = first, channel += plane, channels--;
    }
  }

 private:
  int row = 0, until = 0, left = 0, right = 0, first = 0, h = 0, rows = 0, channels = 0, pixel = 0;
  int64_t down = 0, plane = 0;
  const float* channel = nullptr;
};

// Aligned memory that a thread keeps for the next call: fresh pages cost more than the work on a small layer.
struct Scratch {
  float* data = nullptr;
  size_t size = 0;
  float* at_least(size_t floats) {
    if (floats > size) {
      free(data);
      data = (float*)aligned_alloc(64, (floats * sizeof(float) / 64 + 1) * 64);
      size = floats;
    }
    return data;
  }
  ~Scratch() { free(data); }
};
