// Exact selection and re-application of masks. Results equal the torch versions bit for bit, NaN, infinities and -0.0
// included, whatever the number of threads: chunks are fixed, counts are integers, candidates are kept in order.
#include "vector.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

// --- keep_best: the best of many ----------------------------------------------------------------------------------

constexpr int64_t CHUNK = 1 << 16;  // entries that one thread takes at a time
constexpr int64_t PIECE = 1024;     // entries whose keys stay in the nearest cache
constexpr int SHIFT = 19, BINS = 1 << (32 - SHIFT);  // the first digit: sign, exponent and 4 bits of the fraction
constexpr uint32_t NOT_A_NUMBER = ~0u;

// Unsigned integers in the order of the floats; -0.0 equals 0.0, and NaN is above all, as numpy sorts it.
inline uint32_t key_of(float x) {
  float sum = x + 0.0f;
  uint32_t bits;
  memcpy(&bits, &sum, 4);
  uint32_t key = bits ^ (uint32_t(int32_t(bits) >> 31) | 0x80000000u);
  return x != x ? NOT_A_NUMBER : key;
}

inline void keys_of(const float* score, int64_t n, uint32_t* key) {
  for (int64_t i = 0; i < n; i++) key[i] = key_of(score[i]);
}

// The values whose flag is 1, in order; how many. `out` has room for n + 16.
inline int64_t compress(const uint32_t* value, const uint8_t* flag, int64_t n, uint32_t* out) {
  int64_t m = 0, i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) {
    __mmask16 taken = _mm_test_epi8_mask(_mm_loadu_si128((const __m128i*)(flag + i)), _mm_set1_epi8(1));
    _mm512_storeu_si512(out + m, _mm512_maskz_compress_epi32(taken, _mm512_loadu_si512(value + i)));
    m += __builtin_popcount(taken);
  }
#endif
  for (; i < n; i++) {
    out[m] = value[i];
    m += flag[i];
  }
  return m;
}

struct Counts {
  uint32_t bin[2][BINS] = {};  // two tables: neighbours often fall into the same bin
  int64_t operator[](int b) const { return int64_t(bin[0][b]) + bin[1][b]; }
};

// How many living scores have each first digit.
void count_digits(const float* score, const uint8_t* alive, int64_t n, Counts& counts) {
  uint32_t key[PIECE], living[PIECE + 16];
  for (int64_t at = 0; at < n; at += PIECE) {
    int64_t size = std::min(PIECE, n - at), m = size;
    keys_of(score + at, size, key);
    const uint32_t* from = key;
    if (alive) m = compress(key, alive + at, size, living), from = living;
    for (int64_t i = 0; i < m; i++) counts.bin[i & 1][from[i] >> SHIFT]++;
  }
}

// Keep what is certain, keys above `high`; and list the candidates, keys in [low, high], by their place in the chunk.
int64_t keep_above(const float* score, const uint8_t* alive, int64_t n, uint32_t low, uint32_t high, uint8_t* keep,
                   uint32_t* candidate) {
  uint32_t key[PIECE], place[PIECE];
  uint8_t maybe[PIECE];
  int64_t m = 0;
  for (int64_t at = 0; at < n; at += PIECE) {
    int64_t size = std::min(PIECE, n - at);
    keys_of(score + at, size, key);
    for (int64_t i = 0; i < size; i++) {
      uint8_t lives = alive ? alive[at + i] : 1;
      keep[at + i] = lives & (key[i] > high) & (key[i] != NOT_A_NUMBER);
      maybe[i] = lives & (key[i] >= low) & (key[i] <= high);
      place[i] = uint32_t(at + i);
    }
    m += compress(place, maybe, size, candidate + m);
  }
  return m;
}

struct Candidates {
  std::vector<int64_t> index;
  std::vector<uint32_t> key;
};

// Keep the best `wanted` candidates, of equal ones the last; false where NaN takes so much room that too few remain.
bool keep_candidates(const Candidates& found, int64_t wanted, int64_t nans, uint8_t* keep) {
  std::vector<uint32_t> sorted(found.key);
  auto cut = sorted.end() - wanted;
  std::nth_element(sorted.begin(), cut, sorted.end());
  int64_t above = 0, tied = 0, size = int64_t(found.key.size());
  for (uint32_t key : found.key) above += key > *cut, tied += key == *cut;
  int64_t missing = wanted + nans - above;  // NaN ranks first and is never kept: the tied stand in
  if (*cut == NOT_A_NUMBER || missing > tied) return false;
  for (int64_t i = 0, left = tied; i < size; i++) {
    if (found.key[i] == *cut) keep[found.index[i]] = left-- <= missing;
    if (found.key[i] > *cut) keep[found.index[i]] = 1;
  }
  return true;
}

// --- ranks: the best of each short row ----------------------------------------------------------------------------

constexpr int ROWS = 64, LONGEST = 64;  // rows that are ranked together; entries of a row
typedef int32_t Int __attribute__((vector_size(W * 4)));
typedef uint8_t Bytes __attribute__((vector_size(W)));
typedef uint8_t BytesU __attribute__((vector_size(W), aligned(1), may_alias));

// Ranks of W rows, plane by plane: T (T - 1) / 2 comparisons tell who beats whom; on a tie the later entry wins.
template <int FIXED>
inline void rank_rows(const float* plane, int t, uint8_t* rank) {
  const int T = FIXED ? FIXED : t;
  Vec score[FIXED ? FIXED : LONGEST];
  Int lost[FIXED ? FIXED : LONGEST];
  for (int i = 0; i < T; i++) {
    score[i] = load(plane + i * ROWS);
    lost[i] = Int{} + (T - 1 - i);
  }
  for (int i = 0; i < T; i++)
    for (int j = i + 1; j < T; j++) {
      Int beaten = score[i] > score[j];  // -1 where true
      lost[j] -= beaten;
      lost[i] += beaten;
    }
  for (int i = 0; i < T; i++) *(BytesU*)(rank + i * ROWS) = __builtin_convertvector(lost[i], Bytes);
}

struct Block {
  alignas(64) float plane[LONGEST * ROWS];
  alignas(64) float filled[LONGEST * ROWS];
  alignas(64) uint8_t rank[LONGEST * ROWS];
};

// The ranks of up to ROWS rows [rows, t], 0 for the best, as planes [t, ROWS]; the dead score -1.
template <int FIXED>
void rank_block(const float* score, const uint8_t* alive, int rows, int t, Block& block) {
  const int T = FIXED ? FIXED : t;
  const float* from = score;
  if (alive) {
    for (int i = 0; i < rows * T; i++) block.filled[i] = alive[i] ? score[i] : -1.0f;
    from = block.filled;
  }
  for (int row = 0; row < rows; row++)
    for (int i = 0; i < T; i++) block.plane[i * ROWS + row] = from[row * T + i];
  for (int row = 0; row < rows; row += W) rank_rows<FIXED>(block.plane + row, T, block.rank + row);
}

template <int FIXED>
void keep_block(const float* score, const uint8_t* alive, int rows, int t, int count, uint8_t* keep, Block& block) {
  const int T = FIXED ? FIXED : t;
  rank_block<FIXED>(score, alive, rows, T, block);
  for (int row = 0; row < rows; row++)
    for (int i = 0; i < T; i++) keep[row * T + i] = block.rank[i * ROWS + row] < count;
  if (alive)
    for (int i = 0; i < rows * T; i++) keep[i] &= alive[i];
}

template <int FIXED>
void keep_rows(const float* score, const uint8_t* alive, int64_t n, int t, int count, uint8_t* keep, int threads) {
#pragma omp parallel num_threads(threads) if (n * t > CHUNK)
  {
    auto block = std::make_unique<Block>();
#pragma omp for schedule(static)
    for (int64_t row = 0; row < n; row += ROWS) {
      int64_t at = row * t;
      int rows = int(std::min<int64_t>(ROWS, n - row));
      keep_block<FIXED>(score + at, alive ? alive + at : nullptr, rows, t, count, keep + at, *block);
    }
  }
}

}  // namespace

extern "C" {

// keep [n] = the `count` best of the living; 0 < count < number of living. 1: the scores hold too many NaN.
int keep_best(const float* score, const uint8_t* alive, int64_t n, int64_t count, uint8_t* keep, int threads) {
  const int64_t chunks = (n + CHUNK - 1) / CHUNK;
  auto part = [&](int64_t c) { return std::min(CHUNK, n - c * CHUNK); };
  auto living = [&](int64_t c) { return alive ? alive + c * CHUNK : nullptr; };

  std::vector<Counts> counts(std::min<int64_t>(threads, chunks));
  const int workers = int(counts.size());
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
  for (int w = 0; w < workers; w++)
    for (int64_t c = w; c < chunks; c += workers) count_digits(score + c * CHUNK, living(c), part(c), counts[w]);
  auto held = [&](int digit) {
    int64_t sum = 0;
    for (const Counts& x : counts) sum += x[digit];
    return sum;
  };

  int64_t wanted = count;
  int digit = BINS - 1;
  while (digit > 0 && held(digit) < wanted) wanted -= held(digit--);
  if (digit == BINS - 1) return 1;  // the last digit holds NaN alone
  const uint32_t low = uint32_t(digit) << SHIFT, high = low | ((1u << SHIFT) - 1);

  std::unique_ptr<uint32_t[]> place(new uint32_t[chunks * (CHUNK + 16)]);  // mostly never touched
  std::vector<int64_t> found(chunks);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
  for (int64_t c = 0; c < chunks; c++)
    found[c] = keep_above(score + c * CHUNK, living(c), part(c), low, high, keep + c * CHUNK,
                          place.get() + c * (CHUNK + 16));
  Candidates candidates;
  for (int64_t c = 0; c < chunks; c++)
    for (int64_t i = 0; i < found[c]; i++) {
      int64_t index = c * CHUNK + place[c * (CHUNK + 16) + i];
      candidates.index.push_back(index);
      candidates.key.push_back(key_of(score[index]));
    }
  return !keep_candidates(candidates, wanted, held(BINS - 1), keep);
}

// keep [n, t] = the `count` best of every row [n, t] that live.
void keep_best_rows(const float* score, const uint8_t* alive, int64_t n, int t, int count, uint8_t* keep, int threads) {
  auto run = t == 9 ? keep_rows<9> : t == 4 ? keep_rows<4> : t == 25 ? keep_rows<25> : keep_rows<0>;
  run(score, alive, n, t, count, keep, threads);
}

// rank [t, n] of every entry in its row of [n, t]; the dead score -1.
void ranks(const float* score, const uint8_t* alive, int64_t n, int t, uint8_t* rank, int threads) {
  auto run = t == 9 ? rank_block<9> : t == 25 ? rank_block<25> : rank_block<0>;
#pragma omp parallel num_threads(threads) if (n * t > CHUNK)
  {
    auto block = std::make_unique<Block>();
#pragma omp for schedule(static)
    for (int64_t row = 0; row < n; row += ROWS) {
      int rows = int(std::min<int64_t>(ROWS, n - row));
      run(score + row * t, alive ? alive + row * t : nullptr, rows, t, *block);
      for (int i = 0; i < t; i++) memcpy(rank + i * n + row, block->rank + i * ROWS, rows);
    }
  }
}

// Multiply tensors by masks of bytes, 0 or 1, in place and in one pass over everything: mask m [size[m]] belongs to the
// tensors first[m] to first[m + 1] - 1.
void multiply(int64_t masks, const int64_t* size, const uint8_t* const* keep, const int64_t* first,
              float* const* tensor, int threads) {
  constexpr int64_t STRIP = 1 << 14;
  std::vector<int64_t> strips(masks + 1);
  for (int64_t m = 0; m < masks; m++) strips[m + 1] = strips[m] + (size[m] + STRIP - 1) / STRIP;
#pragma omp parallel for schedule(static) num_threads(threads) if (strips[masks] > 4)
  for (int64_t s = 0; s < strips[masks]; s++) {
    int64_t m = std::upper_bound(strips.begin(), strips.end(), s) - strips.begin() - 1;
    int64_t at = (s - strips[m]) * STRIP, n = std::min(STRIP, size[m] - at);
    const uint8_t* mask = keep[m] + at;
    for (int64_t k = first[m]; k < first[m + 1]; k++) {
      float* x = tensor[k] + at;
      for (int64_t i = 0; i < n; i++) x[i] *= float(mask[i]);
    }
  }
}
}
