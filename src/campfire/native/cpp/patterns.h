// What generated code stands on: kernels listed filter by filter and pattern by pattern (FKW), and the passes over them.
//
// Generated code has one loop for each pattern, without a branch inside: it reads every vector of the strip that the
// pattern touches once, for all products that need it.
#pragma once

#include "lanes_accumulate.h"

namespace {

// Group i = block K + k has kernels start[i] to start[i + 1], those of one pattern side by side; in that order stand values.
struct Filters {
  const int32_t *start, *at;  // offset; the group's first value
  const uint16_t* entry;      // [kernel] index: the line of the strip it reads
  const uint16_t* count;      // [group][pattern] stride: kernels of each
  const float* value;         // weights
  int patterns;
  Filters after(int64_t groups) const {
    return {start + groups, at + groups, entry, count + groups * patterns, value, patterns};
  }
};

struct PatternRun : Work {
  Filters list;
};

// One kernel: the strip where its taps begin, and its values.
struct Kernel {
  const float *strip, *value;
  Vec line(int i) const { return load(strip + i * LANES); }
  Vec kept(int i) const { return keep(line(i)); }  // for several products: read once
  Vec weight(int t) const { return splat(value[t]); }
};

// The kernels of one output over one strip, in their order.
struct Filter {
  const uint16_t *entry, *count;
  const float *strip, *value;
  Filter(const Filters& f, int k, const float* strip)
      : entry(f.entry + f.start[k]), count(f.count + (int64_t)k * f.patterns), strip(strip), value(f.value + f.at[k]) {}
  template <int TAPS>
  Kernel next() {
    const Kernel kernel{strip + (int64_t)*entry++ * LANES, value};
    value += TAPS;
    return kernel;
  }
};

// The number that all have in common, or 0.
template <size_t N>
constexpr int32_t common(const int32_t (&taps)[N]) {
  for (int32_t n : taps)
    if (n != taps[0]) return 0;
  return taps[0];
}

template <int TAPS>
void copy_kernels(const float* value, const int32_t* which, int n, float* to) {
  for (int i = 0; i < n; i++, to += TAPS) memcpy(to, value + which[i], sizeof(float) * TAPS);
}

// Values in the order of the list: kernel i has those from which[i] on, as many as its pattern has taps. In their own order
// those of neighbouring filters would lie a page apart.
template <typename Tiles>
const float* listed(const Filters& f, const int32_t* which, int groups, int64_t values) {
  constexpr int32_t TAPS = common(Tiles::TAPS);
  static thread_local Scratch ordered;
  float* const all = ordered.at_least((size_t)values + 1);
#pragma omp parallel for schedule(static)
  for (int g = 0; g < groups; g++) {
    const int32_t* kernel = which + f.start[g];
    float* to = all + f.at[g];
    if constexpr (TAPS > 0)
      copy_kernels<TAPS>(f.value, kernel, f.start[g + 1] - f.start[g], to);
    else
      for (int p = 0; p < f.patterns; p++)
        for (int n = f.count[(int64_t)g * f.patterns + p]; n > 0; n--, to += Tiles::TAPS[p])
          memcpy(to, f.value + *kernel++, sizeof(float) * Tiles::TAPS[p]);
  }
  return all;
}

// y = x through the kernels, finished by bias, residual and ReLU.
template <typename Tiles>
void run_patterns(const Pass& p, const float* x, Filters f, const int32_t* which, int64_t values, const Epilogue& end,
                  float* y) {
  f.value = listed<Tiles>(f, which, blocks_of(p) * p.out_channels, values);
  Accumulation<Tiles>(p, x, f, end, y).run();
}

}  // namespace
