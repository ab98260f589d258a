// Register tiles that accumulate one output channel over one strip.
#pragma once

#include "lanes_strip.h"

// Vectors that a tile may hold: all 32 registers but the operands; narrow flavours have 16, and take the lanes in turns.
constexpr int TILE = W == 16 ? 28 : 12;
constexpr int WHOLE = 21;  // beside nine weights, in any flavour

// Survivors as a pass visits them. Output channel k in block b and class q is group i = (q blocks + b) K + k: its lines
// are offset[start[i]] to offset[start[i + 1]], in one stream over all groups; its values begin at value[per at[i]].
struct Survivors {
  const int32_t *start, *at;
  const uint16_t* offset;
  const float* value;
  Survivors after(int64_t groups) const { return {start + groups, at + groups, offset, value}; }
};

// The work of one call: some output channels over one strip, and where their sums come from and go to.
struct Work {
  int channels, pitch, tall;  // tall: rows that strips are laid out for
  const float* strip;     // [channel][line][16]
  float* sums;            // [output channel][rows * cols][16]: where they wait, `size` floats apart
  int64_t size;
  bool first, last;       // strips: begin with the bias; finish
  const float* bias;      // [output channel], or null
  float* out;             // finished sums go here, channels, rows and columns so many floats apart,
  int64_t plane, down, right;
  int rows, cols, valid;  // of the tile; as many columns as the image has
  int lanes, edge;        // images there are; in the last column
  const float* residual;  // after adding this, laid out the same; null: nothing
  bool relu;
  bool inner;             // whole vectors, a tile within the image: finished sums go out from their registers
  Ahead* ahead;
};

struct Run : Work {
  Survivors list;  // from the first channel's group on
};

// Loops over a tile, unrolled: what they index are registers.
#define CAMPFIRE_TILE                                    \
  _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++) \
      _Pragma("GCC unroll 32") for (int j = 0; j < COLS; j++)

static inline Vec rectified(Vec v) { return v < 0 ? Vec{} : v; }  // keeps NaN, as the library does

static inline void finish_line(const Work& run, const float* sums, int64_t at) {
  for (int lane = 0; lane < LANES; lane += W) {
    Vec v = load(sums + lane);
    if (run.residual) v += load(run.residual + at + lane);
    if (run.relu) v = rectified(v);
    store(run.out + at + lane, v);
  }
}

static inline void finish_part(const Work& run, const float* sums, int64_t at, int lanes) {
  for (int lane = 0; lane < lanes; lane++) {
    const float v = run.residual ? sums[lane] + run.residual[at + lane] : sums[lane];
    run.out[at + lane] = run.relu && v < 0 ? 0.f : v;
  }
}

// Not part of the tiles: what it needs would take registers from their loops.
__attribute__((noinline)) static void finish(const Work& run, int k) {
  const float* sums = run.sums + k * run.size;
  for (int i = 0; i < run.rows; i++)
    for (int j = 0; j < run.valid; j++) {
      const int64_t at = k * run.plane + i * run.down + j * run.right;
      const int lanes = j + 1 < run.valid ? run.lanes : run.edge;
      if (lanes < LANES)
        finish_part(run, sums + (i * run.cols + j) * LANES, at, lanes);
      else
        finish_line(run, sums + (i * run.cols + j) * LANES, at);
    }
}

// Between two output channels: fetches what the next strip is packed from, and the lines that a later channel's sums are
// written to, since stores that miss hold up all that follow.
__attribute__((noinline)) static void look_ahead(const Work& run, int k) {
  run.ahead->step();
  if (!run.last || k + 2 >= run.channels) return;
  for (int i = 0; i < run.rows; i++)
    for (int j = 0; j < run.valid; j++)
      __builtin_prefetch(run.out + (k + 2) * run.plane + i * run.down + j * run.right, 1);
}

// The lines that survivors read, three ahead of their use: an address that is read only just in time waits behind all
// earlier reads of the strip, and so do the reads that it is for.
struct Stream {
  const uint16_t* offset;
  const float *strip, *first, *second, *third;

  Stream(const uint16_t* offset, const float* strip) : offset(offset + 3), strip(strip) {
    first = strip + (int64_t)offset[0] * LANES;
    second = strip + (int64_t)offset[1] * LANES;
    third = strip + (int64_t)offset[2] * LANES;
  }
  const float* next() {
    const float* p = first;
    first = second, second = third, third = strip + (int64_t)*offset++ * LANES;
    asm("" : "+r"(third));
    return p;
  }
};

// One pointer a row and constant displacements, instead of an address a product.
template <typename Pointer>
static inline void next_row(Pointer& p, int64_t pitch) {
  p += pitch;
  asm("" : "+r"(p));
}

// Sums of one output channel after another; Kind adds what a channel's survivors contribute.
template <int ROWS, int COLS, typename Kind, typename Run>
static inline void accumulate(const Run& run) {
  for (int k = 0; k < run.channels; k++) {
    const bool empty = run.list.start[k] == run.list.start[k + 1];
    if (run.last || run.ahead->busy()) look_ahead(run, k);
    if (empty && !run.first && !run.last) continue;
    for (int lane = 0; lane < LANES; lane += W) {
      float* sums = run.sums + k * run.size + lane;
      Vec sum[ROWS][COLS];
      if (run.first) {
        const Vec start = run.bias ? splat(run.bias[k]) : Vec{};
        CAMPFIRE_TILE sum[i][j] = start;
      } else {
        CAMPFIRE_TILE sum[i][j] = load(sums + (i * COLS + j) * LANES);
      }
      Kind::add(run, k, lane, sum);
      const bool direct = run.last && run.inner;
      if (direct && run.residual) {
        const float* more = run.residual + k * run.plane + lane;
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++, next_row(more, run.down))
#pragma GCC unroll 32
          for (int j = 0; j < COLS; j++) sum[i][j] += load(more + j * run.right);
      }
      if (direct && run.relu) CAMPFIRE_TILE sum[i][j] = rectified(sum[i][j]);
      float* to = direct ? run.out + k * run.plane + lane : sums;
      const int64_t down = direct ? run.down : COLS * LANES, right = direct ? run.right : LANES;
#pragma GCC unroll 8
      for (int i = 0; i < ROWS; i++, next_row(to, down))
#pragma GCC unroll 32
        for (int j = 0; j < COLS; j++) store(to + j * right, sum[i][j]);
    }
    if (run.last && !run.inner) finish(run, k);
  }
}

// In a register: the compiler would rather read it anew for every product.
static inline Vec keep(Vec v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
  return v;
}

// Single weights: one broadcast each, and every product reads its input from the strip.
template <int ROWS, int COLS>
struct Taps {
  static constexpr int PER = 1;
  static inline void add(const Run& run, int k, int lane, Vec (&sum)[ROWS][COLS]) {
    const int first = run.list.start[k], count = run.list.start[k + 1] - first;
    const float* value = run.list.value + run.list.at[k];
    Stream stream(run.list.offset + first, run.strip + lane);
    const int64_t pitch = (int64_t)run.pitch * LANES;
    for (int n = 0; n < count; n++) {
      const float* p = stream.next();
      const Vec w = splat(value[n]);
#pragma GCC unroll 8
      for (int i = 0; i < ROWS; i++, next_row(p, pitch))
#pragma GCC unroll 32
        for (int j = 0; j < COLS; j++) sum[i][j] += w * load(p + j * LANES);
    }
  }
  static void run(const Run& run) { accumulate<ROWS, COLS, Taps>(run); }
};

// Whole 3 x 3 kernels: nine weights in registers, every input vector is read once for up to nine products.
template <int ROWS, int COLS, int STEP>
struct KernelsAt {
  static constexpr int PER = 9;

  // f(vector, tap, row, column of the tile) for every product of one kernel.
  template <typename F>
  static inline void visit(const float* p, int64_t pitch, int tall, F f) {
#pragma GCC unroll 2
    for (int down = 0; down < STEP; down++)
#pragma GCC unroll 2
      for (int right = 0; right < STEP; right++) {
        const float* row = p;
#pragma GCC unroll 16
        for (int i = 0; i < ROWS + (2 - down) / STEP; i++, next_row(row, pitch))
#pragma GCC unroll 32
          for (int j = 0; j < COLS + (2 - right) / STEP; j++) {
            const Vec v = keep(load(row + j * LANES));
#pragma GCC unroll 9
            for (int t = 0; t < 9; t++) {
              const int y = i - t / 3 / STEP, x = j - t % 3 / STEP;
              const bool here = t / 3 % STEP == down && t % 3 % STEP == right;
              if (here && y >= 0 && y < ROWS && x >= 0 && x < COLS) f(v, t, y, x);
            }
          }
        p += (tall + (2 - down) / STEP) * pitch;  // the next phase of the strip
      }
  }

  static inline void add(const Run& run, int k, int lane, Vec (&sum)[ROWS][COLS]) {
    const int first = run.list.start[k], count = run.list.start[k + 1] - first;
    const float* value = run.list.value + 9 * (int64_t)run.list.at[k];
    Stream stream(run.list.offset + first, run.strip + lane);
    for (int n = 0; n < count; n++, value += 9) {
      Vec w[9];
      for (int t = 0; t < 9; t++) w[t] = splat(value[t]);
      visit(stream.next(), (int64_t)run.pitch * LANES, run.tall, [&](Vec v, int t, int y, int x) __attribute__((always_inline)) {
        sum[y][x] += v * w[t];
      });
    }
  }
  static void run(const Run& run) { accumulate<ROWS, COLS, KernelsAt>(run); }
};

template <int ROWS, int COLS>
struct Kernels : KernelsAt<ROWS, COLS, 1> {};
template <int ROWS, int COLS>
struct StridedKernels : KernelsAt<ROWS, COLS, 2> {};
