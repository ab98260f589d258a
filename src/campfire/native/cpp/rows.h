// Short rows of scores, such as the taps of a kernel: the rank of every entry, and what a row holds.
#pragma once
#include "best.h"
#include "vector.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

constexpr int LONGEST = 64, ROOM = 4096;  // entries of a row; entries that are ranked while they stay near

// W entries are compared at once with their neighbours d places behind and before them, of which those of their own row
// count. So nothing has to be transposed. Tables tell which count, for a first entry that is the j-th of its row.
struct Neighbours {
  int t;
  int32_t after[LONGEST + W];  // how many stand behind an entry in its row
#if defined(__AVX512F__)
  uint16_t behind[LONGEST][LONGEST], before[LONGEST][LONGEST];  // [j][d]: a bit for each of the W
#else
  int32_t behind[LONGEST][LONGEST + W], before[LONGEST][LONGEST + W];  // [d][j]: -1 or 0
#endif

  explicit Neighbours(int t) : t(t) {
    memset(behind, 0, sizeof behind);
    memset(before, 0, sizeof before);
    for (int j = 0; j < t + W; j++) after[j] = t - 1 - j % t;
    for (int d = 1; d < t; d++) {
#if defined(__AVX512F__)
      for (int j = 0; j < t; j++)
        for (int i = 0; i < W; i++) {
          behind[j][d] |= uint16_t((j + i) % t + d < t) << i;
          before[j][d] |= uint16_t((j + i) % t >= d) << i;
        }
#else
      for (int j = 0; j < t + W; j++) {
        behind[d][j] = -(j % t + d < t);
        before[d][j] = -(j % t >= d);
      }
#endif
    }
  }
};

// The ranks of W entries, the first of them the j-th of its row.
inline void rank_step(const float* at, const Neighbours& near, int j, uint8_t* rank) {
#if defined(__AVX512F__)  // a third faster than vectors of 0 and -1, measured
  const __m512i one = _mm512_set1_epi32(1);
  const __m512 x = _mm512_loadu_ps(at);
  __m512i lost = _mm512_loadu_si512(near.after + j), more = _mm512_setzero_si512();
  for (int d = 1; d < near.t; d++) {
    __mmask16 won = _mm512_mask_cmp_ps_mask(near.behind[j][d], x, _mm512_loadu_ps(at + d), _CMP_GT_OQ);
    __mmask16 beaten = _mm512_mask_cmp_ps_mask(near.before[j][d], _mm512_loadu_ps(at - d), x, _CMP_GT_OQ);
    lost = _mm512_mask_sub_epi32(lost, won, lost, one);
    more = _mm512_mask_add_epi32(more, beaten, more, one);
  }
  _mm_storeu_si128((__m128i*)rank, _mm512_cvtepi32_epi8(_mm512_add_epi32(lost, more)));
#else
  typedef int32_t Int __attribute__((vector_size(W * 4)));
  typedef int32_t IntU __attribute__((vector_size(W * 4), aligned(4), may_alias));
  typedef uint8_t Bytes __attribute__((vector_size(W)));
  typedef uint8_t BytesU __attribute__((vector_size(W), aligned(1), may_alias));
  const Vec x = load(at);
  Int lost = *(const IntU*)(near.after + j);
  for (int d = 1; d < near.t; d++) {
    lost += (x > load(at + d)) & *(const IntU*)(near.behind[d] + j);
    lost -= (load(at - d) > x) & *(const IntU*)(near.before[d] + j);
  }
  *(BytesU*)rank = __builtin_convertvector(lost, Bytes);
#endif
}

// The ranks of whole rows, n entries in all, 0 for the best; on a tie the later entry wins; the dead score -1.
void rank_rows(const float* score, const uint8_t* alive, int n, const Neighbours& near, uint8_t* rank) {
  float padded[LONGEST + ROOM + W + LONGEST];
  float* own = padded + LONGEST;
  memset(padded, 0, LONGEST * 4);  // what is compared with the margins does not count
  memset(own + n, 0, (W + LONGEST) * 4);
  if (alive)
    for (int i = 0; i < n; i++) {
      float x = score[i];
      own[i] = alive[i] ? x : -1.0f;
    }
  else
    memcpy(own, score, n * 4);
  for (int i = 0, j = 0; i < n; i += W, j = (j + W) % near.t) rank_step(own + i, near, j, rank + i);
}

// Call `use(at, n, ranks)` for every piece of whole rows.
template <typename Use>
void for_ranks(const float* score, const uint8_t* alive, int64_t rows, int t, int threads, Use use) {
  const int64_t total = rows * t, piece = ROOM / t * t;
  const auto near = std::make_unique<Neighbours>(t);
#pragma omp parallel for schedule(static) num_threads(threads) if (total > CHUNK)
  for (int64_t at = 0; at < total; at += piece) {
    uint8_t rank[ROOM + W];
    int n = int(std::min(piece, total - at));
    rank_rows(score + at, alive ? alive + at : nullptr, n, *near, rank);
    use(at, n, rank);
  }
}

// --- what rows hold ----------------------------------------------------------------------------------------------

// The best living score of each row, 0 where none lives, and how many live; NaN is above all. At most ROOM entries.
void best_of_rows(const float* score, const uint8_t* alive, int rows, int t, float* best, int64_t* held) {
  float own[ROOM];
  int odd = 0;
  for (int i = 0; i < rows * t; i++) {  // loops without branches: who lives cannot be foretold
    uint32_t bits;
    memcpy(&bits, score + i, 4);
    bits &= -uint32_t(alive[i]);
    memcpy(own + i, &bits, 4);
    odd |= own[i] != own[i];
  }
  for (int row = 0; row < rows; row++) {
    float most = 0;
    int living = 0;
    for (int j = 0; j < t; j++) {
      float x = own[row * t + j];
      most = x > most ? x : most;
      living += alive[row * t + j];
    }
    best[row] = most, held[row] = living;
  }
  for (int i = 0; odd && i < rows * t; i++)
    if (own[i] != own[i]) best[i / t] = own[i];
}

// A row of 0 and 1 stays or goes; without a branch, for which it is cannot be foretold.
inline void and_row(uint8_t* row, uint8_t stays, int t) {
  const uint64_t mask = -uint64_t(stays);
  int j = 0;
  for (uint64_t eight; j + 8 <= t; j += 8) {
    memcpy(&eight, row + j, 8);
    eight &= mask;
    memcpy(row + j, &eight, 8);
  }
  for (; j < t; j++) row[j] &= uint8_t(mask);
}

// The score of rank `level` in each row, and its place; NaN and 0 where NaN confuses the ranks. At most ROOM entries.
void next_of_rows(const float* score, const uint8_t* rank, int rows, int t, int level, float* next, uint8_t* place) {
  uint32_t bits[ROOM], at[ROOM], found[ROOM + 16], where[ROOM + 16];
  uint8_t flag[ROOM];
  const int n = rows * t;
  memcpy(bits, score, n * 4);
  for (int i = 0; i < n; i++) flag[i] = rank[i] == level, at[i] = uint32_t(i);
  const int64_t m = compress(bits, flag, n, found);  // one a row, so in the order of the rows
  compress(at, flag, n, where);
  for (int row = 0; row < rows; row++) {
    const uint32_t j = where[row] - uint32_t(row * t);
    const bool whole = m == rows && j < uint32_t(t);
    memcpy(next + row, found + row, 4);
    if (!whole) next[row] = NAN;
    place[row] = uint8_t(whole ? j : 0);
  }
}

}  // namespace
