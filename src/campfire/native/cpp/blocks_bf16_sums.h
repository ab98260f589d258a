// Gradients of weights in bfloat16: who adds up which pixels, so that sums do not depend on the number of threads.
//
// Threads share out pixels where the weights are small beside them, else row groups; which of the two, and into how many
// parts, follows from the sizes alone. A Job has items of pixels:
//   count(), threads()
//   x_floats(), dy_floats()           room for what is interleaved of an item
//   lines(i), interleave(i, j, ..)    of item i, line by line
//   group(g, i, ..)                   adds item i to the sums of row group g
//   round(totals)                     all sums, to bfloat16
#pragma once
#include "blocks_bf16.h"

namespace {

struct Totals {
    const float* sums;  // [parts][size]
    int64_t parts, size;

    Vec at(int64_t e) const {
        Vec sum = load(sums + e);
        for (int64_t part = 1; part < parts; part++) sum += load(sums + part * size + e);
        return sum;
    }
};

constexpr int64_t SMALL = 1 << 19;  // weights whose partial sums cost little
constexpr int64_t PARTS = 8;

inline float* aligned(std::vector<float>& memory) { return (float*)(((uintptr_t)memory.data() + 63) & ~(uintptr_t)63); }

template <class Job>
void by_pixels(const Job& job, int64_t groups, int64_t size) {
    const int64_t parts = std::min(PARTS, job.count());
    std::vector<float> memory(size * parts + 16);
    float* sums = aligned(memory);
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)job.threads())
    for (int64_t part = 0; part < parts; part++)
        for (int64_t i = part * job.count() / parts; i < (part + 1) * job.count() / parts; i++) {
            float *xs = scratch(0, job.x_floats()), *dys = scratch(1, job.dy_floats());
            for (int64_t j = 0; j < job.lines(i); j++) job.interleave(i, j, xs, dys);
            for (int64_t g = 0; g < groups; g++) job.group(g, i, xs, dys, sums + part * size);
        }
    job.round(Totals{sums, parts, size});
}

template <class Job>
void by_groups(const Job& job, int64_t groups, int64_t size) {
    std::vector<float> memory(size + 16), interleaved(job.x_floats() + job.dy_floats() + 32);
    float *sums = aligned(memory), *xs = aligned(interleaved), *dys = xs + job.x_floats();
    for (int64_t i = 0; i < job.count(); i++) {
        const int64_t lines = job.lines(i);
#pragma omp parallel num_threads((int)job.threads())
        {
#pragma omp for schedule(dynamic, 4)
            for (int64_t j = 0; j < lines; j++) job.interleave(i, j, xs, dys);
#pragma omp for schedule(dynamic, 1)
            for (int64_t g = 0; g < groups; g++) job.group(g, i, xs, dys, sums);
        }
    }
    job.round(Totals{sums, 1, size});
}

// Of `size` weights.
template <class Job>
void sum_up(const Job& job, int64_t groups, int64_t size) {
    (size <= SMALL ? by_pixels<Job> : by_groups<Job>)(job, groups, size);
}

}  // namespace
