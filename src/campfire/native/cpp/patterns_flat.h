// Patterns over few images: neighbouring pixels are the lanes. Rows of a padded map follow each other, so that a tap is a
// distance and no lane is lost at the end of a row; what falls on the padding is dropped.
//
// A channel's inputs under one pattern stand in registers while all outputs that have it there go by (load-redundancy
// elimination over filters); their sums lie in the first cache. Weights are few times used: the fewer, the less they are moved.
#pragma once

#include "patterns.h"

namespace {

// campfire/kernels/codegen/flat.py mirrors it field by field; a vector has W floats.
struct Flat {
  int32_t images, in_channels, in_height, in_width, out_channels, out_height, out_width;
  int32_t taps_high, taps_wide, top, left;  // padding
  int32_t vectors, tiles;                   // of an output's map; shared out evenly
  int32_t chunk;                            // outputs whose sums are in the first cache together
  int32_t plane;                            // floats of a padded channel
  int row() const { return (in_width + left) * images; }  // the padding after a row is that before the next
  int first(int tile) const { return (int)((int64_t)vectors * tile / tiles); }
  int widest() const { return ceil_div(vectors, tiles); }
};

constexpr int MOST_TAPS = 64, AHEAD_OF_USE = 96;  // kernels between a value's fetch and its use

// A tile of all outputs of one chunk.
struct FlatRun {
  const uint16_t *entry, *count;
  const int32_t* which;
  const float *value, *x;
  float* sums;
  int64_t plane, row, channels;
  int rows;  // that taps span
  int64_t tap[MOST_TAPS];
};

// One input channel after another; of each, patterns and their outputs in their order. IN_PLACE: values are read where they lie.
template <int PATTERNS, int VECTORS, bool IN_PLACE>
struct Inputs {
  const FlatRun& run;
  const uint16_t *entry, *count;
  const int32_t* which;
  const float *value, *x;
  int64_t left;
  explicit Inputs(const FlatRun& run)
      : run(run), entry(run.entry), count(run.count), which(run.which), value(run.value), x(run.x), left(run.channels) {
    fetch();
  }
  void next() {
    count += PATTERNS, x += run.plane;
    if (--left > 1) fetch();
  }
  void fetch() const {
    for (int r = 0; r < run.rows; r++)
      for (int v = 0; v <= VECTORS; v++) __builtin_prefetch(x + run.plane + r * run.row + v * W);
  }
  const float* under(int tap) const { return x + run.tap[tap]; }
  float* sums() { return run.sums + (int64_t)*entry++ * W; }
  template <int TAPS>
  const float* weights() {
    if (IN_PLACE) {
      __builtin_prefetch(value + which[AHEAD_OF_USE]);
      return value + *which++;
    }
    const float* these = value;
    value += TAPS;
    return these;
  }
};

static inline void pad_channel(const Flat& p, const float* x, float* to) {
  const int line = p.in_width * p.images, gap = p.left * p.images;
  float* const end = to + p.plane;
  memset(to, 0, sizeof(float) * p.top * p.row());
  to += p.top * p.row();
  for (int h = 0; h < p.in_height; h++, to += line, x += line) {
    for (int i = 0; i < gap; i++) *to++ = 0;
    memcpy(to, x, sizeof(float) * line);
  }
  memset(to, 0, sizeof(float) * (end - to));
}

static inline void finish_row(const float* sums, int n, const float* residual, bool relu, float* y) {
  int i = 0;
  for (; i + W <= n; i += W) {
    Vec v = load(sums + i);
    if (residual) v += load(residual + i);
    store(y + i, relu ? rectified(v) : v);
  }
  for (; i < n; i++) {
    const float v = residual ? sums[i] + residual[i] : sums[i];
    y[i] = relu && v < 0 ? 0.f : v;
  }
}

// The floats from `from` to `until` of an output's padded map, where they are pixels.
static inline void finish_flat(const Flat& p, const float* sums, int from, int until, const float* residual, bool relu, float* y) {
  const int line = p.out_width * p.images;
  for (int h = from / p.row(); h < p.out_height && h * p.row() < until; h++) {
    const int first = most(from, h * p.row()), last = least(until, h * p.row() + line), at = first - h * p.row() + h * line;
    finish_row(sums + first - from, last - first, residual ? residual + at : nullptr, relu, y + at);
  }
}

template <typename Tiles>
class FlatConvolution {
 public:
  FlatConvolution(const Flat& p, const float* padded, const Filters& list, const int32_t* which, const Epilogue& end, float* y)
      : p(p), padded(padded), list(list), which(which), end(end), y(y) {}

  void run() const {
    const int chunks = ceil_div(p.out_channels, p.chunk);
#pragma omp parallel for schedule(dynamic, 1)
    for (int i = 0; i < p.tiles * chunks; i++) {
      static thread_local Scratch sums;
      at(i / p.tiles, i % p.tiles, sums.at_least((size_t)p.chunk * p.widest() * W));
    }
  }

 private:
  const Flat p;
  const float* padded;
  const Filters list;
  const int32_t* which;
  const Epilogue end;
  float* y;

  void at(int chunk, int tile, float* sums) const {
    const int k = chunk * p.chunk, outputs = least(p.chunk, p.out_channels - k);
    const int first = p.first(tile), size = p.first(tile + 1) - first, each = p.widest() * W;
    for (int i = 0; i < outputs; i++)
      for (int v = 0; v < size; v++) store(sums + (int64_t)i * each + v * W, end.bias ? splat(end.bias[k + i]) : Vec{});
    Tiles::sums_of(size)(prepared(chunk, first, sums));
    const int64_t plane = (int64_t)p.out_height * p.out_width * p.images;
    for (int i = 0; i < outputs; i++) {
      const int64_t out = (k + i) * plane;
      finish_flat(p, sums + (int64_t)i * each, first * W, (first + size) * W, end.residual ? end.residual + out : nullptr, end.relu,
                  y + out);
    }
  }

  FlatRun prepared(int chunk, int first, float* sums) const {
    const Filters here = list.after((int64_t)chunk * p.in_channels);
    const float* value = Tiles::IN_PLACE ? list.value : list.value + here.at[0];
    FlatRun run{list.entry + here.start[0], here.count, which + here.start[0], value, padded + (int64_t)first * W, sums};
    run.plane = p.plane, run.row = p.row(), run.channels = p.in_channels, run.rows = p.taps_high;
    for (int t = 0; t < p.taps_high * p.taps_wide; t++)
      run.tap[t] = t / p.taps_wide * run.row + t % p.taps_wide * (int64_t)p.images;
    return run;
  }
};

// y = x through the kernels, finished by bias, residual and ReLU.
template <typename Tiles>
void run_flat(const Flat& p, const float* x, Filters f, const int32_t* which, int64_t values, const Epilogue& end, float* y) {
  static thread_local Scratch padded;
  float* const map = padded.at_least((size_t)p.in_channels * p.plane);
  if (!Tiles::IN_PLACE) f.value = listed<Tiles>(f, which, ceil_div(p.out_channels, p.chunk) * p.in_channels, values);
#pragma omp parallel for schedule(static)
  for (int c = 0; c < p.in_channels; c++)
    pad_channel(p, x + (int64_t)c * p.in_height * p.in_width * p.images, map + (int64_t)c * p.plane);
  FlatConvolution<Tiles>(p, map, f, which, end, y).run();
}

}  // namespace
