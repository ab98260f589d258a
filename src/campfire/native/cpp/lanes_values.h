// Register tiles for the gradient of the survivors: the output gradient stays in registers, the strip streams by.
#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "lanes_tile.h"

// The work of one call: some output channels over one strip.
struct Reduction {
  Survivors list;  // from the first channel's group on
  int channels, pitch, tall;  // tall: rows that strips are laid out for
  const float* strip;
  const float* gradient;  // of the outputs under the tile, channels, rows and columns so many floats apart,
  int64_t plane, down, right;
  int rows, cols, valid;  // of the tile; as many columns as the image has
  int lanes, edge;        // images there are; in the last column
  float* copy;            // [rows * cols][16], for a tile that lies half outside, or has no whole vectors
  float* product;  // [survivor][16]: sums over the pixels of the tile, lane by lane, for as many as a channel may have
  float* d_value;  // in the order of the list
  bool add;        // to what is there
  Ahead* ahead;
};

// The gradient of one output channel, zero in the columns and lanes that there are not.
__attribute__((noinline)) static const float* padded(const Reduction& run, const float* gradient) {
  for (int i = 0; i < run.rows; i++) {
    float* to = run.copy + i * run.cols * LANES;
    for (int j = 0; j < run.valid; j++)
      copy_line(to + j * LANES, gradient + i * run.down + j * run.right, j + 1 < run.valid ? run.lanes : run.edge);
    zero_lines(to + run.valid * LANES, run.cols - run.valid);
  }
  return run.copy;
}

#if defined(__AVX512F__)
// Sixteen sums across lanes at once: after the step with bit b, lane i holds a part of the sum of vector (i & ~-2b).
template <int BIT>
static inline Vec fold(Vec x, Vec y) {
  typedef int Ints __attribute__((vector_size(64)));
  Ints same, other;
  for (int i = 0; i < 16; i++) {
    same[i] = i & BIT ? 16 + i : i;
    other[i] = same[i] ^ BIT;
  }
  return __builtin_shuffle(x, y, same) + __builtin_shuffle(x, y, other);
}

template <int BIT>
static inline Vec folded(const float* product) {
  if constexpr (BIT == 0)
    return load(product);
  else
    return fold<BIT>(folded<BIT / 2>(product), folded<BIT / 2>(product + BIT * LANES));
}
#else
static inline float across(const float* product) {
  float sum[LANES / 2];
  for (int i = 0; i < LANES / 2; i++) sum[i] = product[i] + product[i + LANES / 2];
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}
#endif

// d_value += or = the sums of `count` products across lanes; products are read up to the next multiple of 16.
static void reduce(const float* product, int count, float* d_value, bool add) {
#if defined(__AVX512F__)
  for (int n = 0; n < count; n += 16, product += 16 * LANES, d_value += 16) {
    const __mmask16 mine = count - n < 16 ? (1 << (count - n)) - 1 : 0xffff;
    const __m512 before = add ? _mm512_maskz_loadu_ps(mine, d_value) : _mm512_setzero_ps();
    _mm512_mask_storeu_ps(d_value, mine, before + (__m512)folded<8>(product));
  }
#else
  for (int n = 0; n < count; n++) d_value[n] = (add ? d_value[n] : 0.f) + across(product + n * LANES);
#endif
}

// One output channel after another; Kind multiplies its gradient, in registers, with what its survivors read.
template <int ROWS, int COLS, typename Kind>
static inline void products(const Reduction& run) {
  for (int k = 0; k < run.channels; k++) {
    const int first = run.list.start[k], count = run.list.start[k + 1] - first;
    run.ahead->step();
    if (!count) continue;
    const float* gradient = run.gradient + k * run.plane;
    int64_t down = run.down, right = run.right;
    if (run.valid < COLS || run.edge < LANES) gradient = padded(run, gradient), down = COLS * LANES, right = LANES;
    for (int lane = 0; lane < LANES; lane += W) {
      Vec g[ROWS][COLS];
      const float* row = gradient + lane;
#pragma GCC unroll 8
      for (int i = 0; i < ROWS; i++, next_row(row, down))
#pragma GCC unroll 32
        for (int j = 0; j < COLS; j++) g[i][j] = load(row + j * right);
      Stream stream(run.list.offset + first, run.strip + lane);
      Kind::multiply(run, stream, count, g, run.product + lane);
    }
    reduce(run.product, Kind::PER * count, run.d_value + (int64_t)Kind::PER * first, run.add);
  }
}

template <int ROWS, int COLS>
struct TapValues {
  static constexpr int PER = 1;
  static inline void multiply(const Reduction& run, Stream& stream, int count, const Vec (&g)[ROWS][COLS], float* product) {
    const int64_t pitch = (int64_t)run.pitch * LANES;
    for (int n = 0; n < count; n++, product += LANES) {
      const float* p = stream.next();
      Vec sum[4] = {};  // four chains hide the latency of the sums
#pragma GCC unroll 8
      for (int i = 0; i < ROWS; i++, next_row(p, pitch))
#pragma GCC unroll 32
        for (int j = 0; j < COLS; j++) {
          if (i * COLS + j < 4)
            sum[i * COLS + j] = g[i][j] * load(p + j * LANES);
          else
            sum[(i * COLS + j) % 4] += g[i][j] * load(p + j * LANES);
        }
      store(product, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
  }
  static void run(const Reduction& run) { products<ROWS, COLS, TapValues>(run); }
};

template <int ROWS, int COLS, int STEP>
struct KernelValuesAt {
  static constexpr int PER = 9;
  static inline void multiply(const Reduction& run, Stream& stream, int count, const Vec (&g)[ROWS][COLS], float* product) {
    for (int n = 0; n < count; n++, product += 9 * LANES) {
      Vec sum[9] = {};
      KernelsAt<ROWS, COLS, STEP>::visit(stream.next(), (int64_t)run.pitch * LANES, run.tall,
                                         [&](Vec v, int t, int y, int x) __attribute__((always_inline)) { sum[t] += v * g[y][x]; });
      for (int t = 0; t < 9; t++) store(product + t * LANES, sum[t]);
    }
  }
  static void run(const Reduction& run) { products<ROWS, COLS, KernelValuesAt>(run); }
};

template <int ROWS, int COLS>
struct KernelValues : KernelValuesAt<ROWS, COLS, 1> {};
template <int ROWS, int COLS>
struct StridedKernelValues : KernelValuesAt<ROWS, COLS, 2> {};
