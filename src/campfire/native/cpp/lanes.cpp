// Convolution with any mask over tensors [channel][row][column][image]: one image a lane.
//
// A register tile of outputs of one channel runs over the survivors that read one strip; strips are small enough for the
// first-level cache, and the sums of all output channels wait in the second while the strip is exchanged.
#include <omp.h>

#include "lanes_choice.h"
#include "lanes_values.h"

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

Survivors skip(const Survivors& list, int groups) {
  return {list.start + groups, list.at + groups, list.offset, list.value};
}

Choice<Run>::Function sums_of(const Pass& p, int rows) {
  if (!p.whole) return Choice<Run>::of<Taps, TILE>(rows, p.cols);
  return p.step == 1 ? Choice<Run>::of<Kernels, WHOLE>(rows, p.cols) : Choice<Run>::of<StridedKernels, WHOLE>(rows, p.cols);
}

Choice<Reduction>::Function products_of(const Pass& p, int rows) {
  using Tiles = Choice<Reduction>;
  if (!p.whole) return Tiles::of<TapValues, TILE>(rows, p.cols);
  return p.step == 1 ? Tiles::of<KernelValues, WHOLE>(rows, p.cols) : Tiles::of<StridedKernelValues, WHOLE>(rows, p.cols);
}

class Accumulation {
 public:
  Accumulation(const Pass& p, const float* x, const Survivors& list, const Epilogue& end, float* y)
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
  const Survivors list;
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
    Run run{};
    run.ahead = &ahead;
    run.list = skip(list, (q * blocks + b) * p.out_channels + from);
    run.channels = until - from, run.pitch = pitch_of(p), run.tall = p.rows;
    run.strip = strip, run.sums = sums, run.size = size, run.rows = rows, run.cols = p.cols, run.valid = cols;
    run.first = b == 0, run.last = b + 1 == blocks;
    run.lanes = place.lanes(p, false), run.edge = place.lanes(p, left + (cols - 1) * p.spread == p.out_width - 1);
    run.bias = end.bias ? end.bias + from : nullptr;
    run.out = y + corner, run.residual = end.residual ? end.residual + corner : nullptr, run.relu = end.relu;
    run.plane = plane, run.down = (int64_t)p.spread * p.out_width * p.images, run.right = (int64_t)p.spread * p.images;
    run.inner = cols == p.cols && run.edge >= LANES;
    sums_of(p, rows)(run);
  }
};

class ValueGradient {
 public:
  // The sums are kept in the order of the list while threads add to them: in that of the values two would share a line.
  ValueGradient(const Pass& p, const float* x, const float* d_y, const Survivors& list, float* ordered)
      : p(p), grid(p), x(x), d_y(d_y), list(list), ordered(ordered), blocks(blocks_of(p)), per(p.whole ? 9 : 1) {}

  // A thread keeps its blocks and output channels from tile to tile, so every sum has one order.
  void run() const {
    const int places = grid.places(), parts = least(p.out_channels, 4 * omp_get_max_threads());
    const size_t products = ((size_t)longest() * per + 15) * LANES;
#pragma omp parallel
    {
      static thread_local Scratch strip, product;
      strip.at_least((size_t)p.block * lines_of(p) * LANES), product.at_least(products);
      for (int i = 0; i < places; i++) {
        const Place place = grid.place(p, i);
        int packed = -1;
        Ahead ahead;
#pragma omp for schedule(static) nowait
        for (int j = 0; j < blocks * parts; j++) {
          const int b = j / parts, part = j % parts;
          if (b != packed) {
            pack_strip(p, x, packed = b, place, strip.data);
            ahead = Ahead(p, x, b + 1, place, p.out_channels);
          }
          const int from = p.out_channels * part / parts, until = p.out_channels * (part + 1) / parts;
          channels(place, b, from, until, strip.data, product.data, i > 0, ahead);
        }
      }
    }
  }

  void deliver(float* d_value) const {
#pragma omp parallel for schedule(static)
    for (int i = 0; i < blocks * p.out_channels; i++) {
      const int64_t count = (list.start[i + 1] - list.start[i]) * per;
      memcpy(d_value + (int64_t)list.at[i] * per, ordered + (int64_t)list.start[i] * per, sizeof(float) * count);
    }
  }

 private:
  const Pass p;
  const Grid grid;
  const float *x, *d_y;
  const Survivors list;
  float* ordered;
  const int blocks, per;

  int longest() const {
    int n = 0;
    for (int i = 0; i < blocks * p.out_channels; i++) n = most(n, list.start[i + 1] - list.start[i]);
    return n;
  }

  void channels(const Place& at, int b, int from, int until, const float* strip, float* product, bool add,
                Ahead& ahead) const {
    alignas(64) float copy[28 * LANES];
    Reduction run{};
    run.list = skip(list, b * p.out_channels + from);
    run.channels = until - from, run.pitch = pitch_of(p), run.tall = p.rows, run.strip = strip;
    run.plane = plane_of(p, p.out_height, p.out_width), run.right = p.images, run.down = (int64_t)p.out_width * p.images;
    run.gradient = d_y + from * run.plane + at.row * run.down + at.col * run.right + at.batch * LANES;
    run.rows = at.rows, run.cols = p.cols, run.valid = least(p.cols, p.out_width - at.col);
    run.lanes = at.lanes(p, false), run.edge = at.lanes(p, at.col + run.valid == p.out_width);
    run.copy = copy, run.ahead = &ahead;
    run.product = product, run.d_value = ordered, run.add = add;
    products_of(p, at.rows)(run);
  }
};

bool supported(const Pass& p) {
  const bool whole = p.taps_high == 3 && p.taps_wide == 3 && p.step <= 2;
  return (whole || !p.whole) && sums_of(p, p.rows) != nullptr;
}

// Values in the order of the list; PER at a time, those of a kernel reversed (the way back flips it).
template <int PER>
void reorder(const float* value, const int32_t* which, int64_t n, float* to) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i++) {
    const float* from = value + (int64_t)which[i] * PER;
    for (int t = 0; t < PER; t++) to[i * PER + t] = from[PER - 1 - t];
  }
}

}  // namespace

extern "C" {

int32_t campfire_lanes_width() { return W; }

// y = x through the survivors, finished by bias, residual and ReLU; 1 if there is no such register tile.
int32_t campfire_lanes_forward(const Pass* p, const float* x, const int32_t* start, const int32_t* at,
                               const uint16_t* offset, const float* value, const float* bias, const float* residual,
                               int32_t relu, float* y) {
  if (!supported(*p)) return 1;
  Accumulation(*p, x, {start, at, offset, value}, {bias, residual, relu != 0}, y).run();
  return 0;
}

// d_x from d_y: the pass describes d_y as its input; survivor i of the list is value `which[i]`.
int32_t campfire_lanes_d_input(const Pass* p, const float* d_y, const int32_t* start, const int32_t* at,
                               const uint16_t* offset, const int32_t* which, const float* value, int64_t count,
                               float* d_x) {
  if (!supported(*p)) return 1;
  static thread_local Scratch ordered;
  (p->whole ? reorder<9> : reorder<1>)(value, which, count, ordered.at_least((size_t)count * 9));
  Accumulation(*p, d_y, {start, at, offset, ordered.data}, {nullptr, nullptr, false}, d_x).run();
  return 0;
}

int32_t campfire_lanes_d_values(const Pass* p, const float* x, const float* d_y, const int32_t* start,
                                const int32_t* at, const uint16_t* offset, float* d_value) {
  if (!supported(*p)) return 1;
  const int32_t count = start[blocks_of(*p) * p->out_channels];
  static thread_local Scratch ordered;
  const ValueGradient gradient(*p, x, d_y, {start, at, offset, nullptr}, ordered.at_least((size_t)count * 9));
  gradient.run();
  gradient.deliver(d_value);
  return 0;
}
}
