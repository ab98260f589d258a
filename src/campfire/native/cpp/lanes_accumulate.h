// One pass over a layer: tiles of outputs, strip by strip; the sums of all output channels wait in the second-level cache while
// the strip is exchanged. Kind says what lists its survivors, and which register tile multiplies them.
#pragma once

#include <omp.h>

#include "lanes_tile.h"

namespace {

constexpr int SPILL = 640 << 10;  // bytes of sums that may wait in the second-level cache

// Tiles over the outputs of class 0, which has the most, and the batch by 16 images; rows are shared out evenly.
struct Grid {
  int rows, high, wide, batches;
  explicit Grid(const Pass& p)
      : rows(ceil_div(p.out_height, p.spread)),
        high(ceil_div(rows, p.rows)),
        wide(ceil_div(ceil_div(p.out_width, p.spread), p.cols)),
        batches(batches_of(p)) {}
  int places() const { return high * wide * batches; }
  Place place(const Pass& p, int i) const {
    const int tile = i / batches, row = rows * (tile / wide) / high;
    return {i % batches, row, tile % wide * p.cols, rows * (tile / wide + 1) / high - row};
  }
};

struct Epilogue {
  const float *bias, *residual;
  bool relu;
};

template <typename Kind>
class Accumulation {
  using List = typename Kind::List;

 public:
  Accumulation(const Pass& p, const float* x, const List& list, const Epilogue& end, float* y)
      : p(p), grid(p), x(x), list(list), end(end), y(y), blocks(blocks_of(p)), size(p.rows * p.cols * LANES) {}

  // Output channels are cut so that their sums fit the cache and every thread has work.
  void run() {
    const int places = grid.places(), classes = p.spread * p.spread;
    const int cuts = most(ceil_div(p.out_channels * classes * size, SPILL / 4), ceil_div(2 * omp_get_max_threads(), places));
    const int chunk = ceil_div(p.out_channels, least(cuts, p.out_channels)), chunks = ceil_div(p.out_channels, chunk);
#pragma omp parallel for schedule(dynamic, 1)
    for (int i = 0; i < places * chunks; i++) {
      static thread_local Scratch strip, sums;
      strip.at_least((size_t)p.block * lines_of(p) * LANES);
      sums.at_least((size_t)chunk * classes * size);
      const int k = i % chunks * chunk;
      const int later = least(places - 1, (i + omp_get_num_threads()) / chunks);  // likely this thread's next
      at(grid.place(p, i / chunks), grid.place(p, later), k, least(p.out_channels, k + chunk), strip.data, sums.data);
    }
  }

 private:
  const Pass p;
  const Grid grid;
  const float* x;
  const List list;
  const Epilogue end;
  float* y;
  const int blocks, size;

  void at(const Place& place, const Place& later, int from, int until, float* strip, float* sums) const {
    for (int b = 0; b < blocks; b++) {
      pack_strip(p, x, b, place, strip);
      const int steps = (until - from) * p.spread * p.spread;
      Ahead ahead = b + 1 < blocks ? Ahead(p, x, b + 1, place, steps) : Ahead(p, x, 0, later, steps);
      for (int q = 0; q < p.spread * p.spread; q++)
        one_class(place, b, q, from, until, strip, sums + (int64_t)q * (until - from) * size, ahead);
    }
  }

  void one_class(const Place& place, int b, int q, int from, int until, const float* strip, float* sums, Ahead& ahead) const {
    const int top = place.row * p.spread + q / p.spread, left = place.col * p.spread + q % p.spread;
    const int rows = least(place.rows, ceil_div(p.out_height - top, p.spread));
    const int cols = least(p.cols, ceil_div(p.out_width - left, p.spread));
    if (rows <= 0 || cols <= 0) return;
    const int64_t plane = plane_of(p, p.out_height, p.out_width);
    const int64_t corner = from * plane + ((int64_t)top * p.out_width + left) * p.images + place.batch * LANES;
    typename Kind::Run run{};
    run.ahead = &ahead;
    run.list = list.after((q * blocks + b) * p.out_channels + from);
    run.channels = until - from, run.pitch = pitch_of(p), run.tall = p.rows;
    run.strip = strip, run.sums = sums, run.size = size, run.rows = rows, run.cols = p.cols, run.valid = cols;
    run.first = b == 0, run.last = b + 1 == blocks;
    run.lanes = place.lanes(p, false), run.edge = place.lanes(p, left + (cols - 1) * p.spread == p.out_width - 1);
    run.bias = end.bias ? end.bias + from : nullptr;
    run.out = y + corner, run.residual = end.residual ? end.residual + corner : nullptr, run.relu = end.relu;
    run.plane = plane, run.down = (int64_t)p.spread * p.out_width * p.images, run.right = (int64_t)p.spread * p.images;
    run.inner = cols == p.cols && run.edge >= LANES;
    Kind::sums_of(p, rows, q)(run);
  }
};

}  // namespace
