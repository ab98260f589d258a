// Convolution with any mask over tensors [channel][row][column][image]: one image a lane.
//
// A register tile of outputs of one channel runs over the survivors that read one strip; strips are small enough for the
// first-level cache, and the sums of all output channels wait in the second while the strip is exchanged.
#include "lanes_accumulate.h"
#include "lanes_choice.h"
#include "lanes_values.h"

namespace {

Choice<Run>::Function sums_of(const Pass& p, int rows) {
  if (!p.whole) return Choice<Run>::of<Taps, TILE>(rows, p.cols);
  return p.step == 1 ? Choice<Run>::of<Kernels, WHOLE>(rows, p.cols) : Choice<Run>::of<StridedKernels, WHOLE>(rows, p.cols);
}

Choice<Reduction>::Function products_of(const Pass& p, int rows) {
  using Tiles = Choice<Reduction>;
  if (!p.whole) return Tiles::of<TapValues, TILE>(rows, p.cols);
  return p.step == 1 ? Tiles::of<KernelValues, WHOLE>(rows, p.cols) : Tiles::of<StridedKernelValues, WHOLE>(rows, p.cols);
}

struct Scattered {
  using List = Survivors;
  using Run = ::Run;
  static Choice<Run>::Function sums_of(const Pass& p, int rows, int) { return ::sums_of(p, rows); }
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
    run.list = list.after(b * p.out_channels + from);
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
  Accumulation<Scattered>(*p, x, {start, at, offset, value}, {bias, residual, relu != 0}, y).run();
  return 0;
}

// d_x from d_y: the pass describes d_y as its input; survivor i of the list is value `which[i]`.
int32_t campfire_lanes_d_input(const Pass* p, const float* d_y, const int32_t* start, const int32_t* at,
                               const uint16_t* offset, const int32_t* which, const float* value, int64_t count,
                               float* d_x) {
  if (!supported(*p)) return 1;
  static thread_local Scratch ordered;
  (p->whole ? reorder<9> : reorder<1>)(value, which, count, ordered.at_least((size_t)count * 9));
  Accumulation<Scattered>(*p, d_y, {start, at, offset, ordered.data}, {nullptr, nullptr, false}, d_x).run();
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
