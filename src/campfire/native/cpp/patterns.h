// What generated code stands on: kernels listed filter by filter and pattern by pattern (FKW), and the passes over them.
//
// Generated code has one loop for each pattern, without a branch inside: it reads every vector of the strip that the
// pattern touches once, for all products that need it.
#pragma once

#include "lanes_accumulate.h"
#include "lanes_values.h"

namespace {

// Group i = (class blocks + block) K + k has kernels start[i] to start[i + 1], those of one pattern side by side.
struct Filters {
  const int32_t *start, *at;  // offset; the group's first value
  const uint32_t* entry;      // [kernel] index: the line of the strip it reads, and its values' place behind `at` << 16
  const uint16_t* count;      // [group][pattern] stride: kernels of each
  const float* value;
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
  const uint32_t* entry;
  const uint16_t* count;
  const float *strip, *value;
  Filter(const Filters& f, int k, const float* strip)
      : entry(f.entry + f.start[k]), count(f.count + (int64_t)k * f.patterns), strip(strip), value(f.value + f.at[k]) {}
  Kernel next() {
    const uint32_t e = *entry++;
    return {strip + (int64_t)(e & 0xffff) * LANES, value + (e >> 16)};
  }
};

// value[which[i]], so that the kernels of a filter find theirs side by side.
const float* gathered(const float* value, const int32_t* which, int64_t n) {
  static thread_local Scratch ordered;
  float* to = ordered.at_least((size_t)n + 1);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i++) to[i] = value[which[i]];
  return to;
}

// y = x through the kernels, finished by bias, residual and ReLU.
template <typename Tiles>
void run_patterns(const Pass& p, const float* x, Filters f, const int32_t* which, int64_t values, const Epilogue& end,
                  float* y) {
  if (which) f.value = gathered(f.value, which, values);
  Accumulation<Tiles>(p, x, f, end, y).run();
}

}  // namespace
