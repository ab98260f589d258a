// Memory that will be read soon, fetched into the second cache a little at a time: all at once, the fetches would queue up and
// everything behind them wait.
#pragma once
#include <algorithm>
#include <cstdint>

#include "unroll.h"

struct Soon {
    const char* at = nullptr;
    int64_t bytes = 0;  // a step

    // `floats` floats in so many steps.
    static Soon in_steps(const float* from, int64_t floats, int64_t steps) {
        steps = std::max<int64_t>(1, steps);
        return {(const char*)from, floats * 4 / steps};
    }

    Soon after(int64_t steps) const { return {at + bytes * steps, bytes}; }
    void step() { ahead(at), at += bytes; }
    void wide_step() { ahead(at), ahead(at + 64), at += bytes; }  // for more than a line a step
};
