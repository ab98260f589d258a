// What single weights can reach at best: a register tile of 4 x 7 vectors over products whose inputs lie in the first cache.
//
//     c++ -std=c++17 -O3 -march=native -o fma_from_l1 bench/fma_from_l1.cpp && ./fma_from_l1
//
// It is the inner loop of native/cpp/lanes_tile.h alone: no packing, no edges, one thread. A strip holds RUN survivors for
// each output, then the sums go to the second cache and those of the next output come. Prints GFLOP/s by RUN.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

constexpr int LANES = 16, ROWS = 4, COLS = 7, PITCH = COLS + 2, LINES = 640, OUTPUTS = 64;
typedef float Vec __attribute__((vector_size(64)));

__attribute__((noinline)) static void tile(const float* strip, const uint16_t* at, const float* weight, int n, float* sums) {
  Vec s[ROWS][COLS];
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < COLS; j++) s[i][j] = *(Vec*)(sums + (i * COLS + j) * LANES);
  for (int t = 0; t < n; t++) {
    const float* p = strip + (size_t)at[t] * LANES;
    const Vec w = weight[t] - Vec{};
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++, p += PITCH * LANES) {
      asm("" : "+r"(p));
#pragma GCC unroll 16
      for (int j = 0; j < COLS; j++) s[i][j] += w * *(const Vec*)(p + j * LANES);
    }
  }
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < COLS; j++) *(Vec*)(sums + (i * COLS + j) * LANES) = s[i][j];
}

static float* zeros(size_t floats) {
  float* p = (float*)aligned_alloc(64, floats * sizeof(float));
  memset(p, 0, floats * sizeof(float));
  return p;
}

int main() {
  const int channel = (ROWS + 2) * PITCH;
  float *strip = zeros((LINES + 256) * LANES), *sums = zeros((size_t)OUTPUTS * ROWS * COLS * LANES);
  for (int run : {30, 60, 120, 500}) {
    std::vector<uint16_t> at(run * OUTPUTS);
    std::vector<float> weight(run * OUTPUTS, 1.f);
    for (auto& a : at) a = rand() % (LINES / channel) * channel + rand() % 3 * PITCH + rand() % 3;
    for (int k = 0; k < OUTPUTS; k++) std::sort(&at[k * run], &at[k * run] + run);
    double best = 1e9;
    for (int round = 0; round < 20; round++) {
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < 20; i++)
        for (int k = 0; k < OUTPUTS; k++)
          tile(strip, &at[k * run], &weight[k * run], run, sums + (size_t)k * ROWS * COLS * LANES);
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    printf("%3d survivors a strip: %.0f GFLOP/s\n", run, 2. * LANES * ROWS * COLS * run * OUTPUTS * 20 / best / 1e9);
  }
}
