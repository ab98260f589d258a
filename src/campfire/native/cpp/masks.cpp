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

constexpr int64_t CHUNK = 1 << 14;  // entries that one thread takes at a time
constexpr int64_t PIECE = 1024;     // entries whose keys stay in the nearest cache
constexpr int SHIFT = 19, BINS = 1 << (32 - SHIFT);  // the first digit: sign, exponent and 4 bits of the fraction
constexpr uint32_t NOT_A_NUMBER = ~0u;

// Unsigned integers in the order of the floats; -0.0 equals 0.0, and NaN is above all, as numpy sorts it.
inline uint32_t key_of(float x) {
  float sum = x + 0.0f;
  uint32_t bits;
  memcpy(&bits, &sum, 4);
  uint32_t key = bits ^ (uint32_t(int32_t(bits) >> 31) | 0x80000000u);
  return key | -uint32_t(x != x);
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
  int64_t all = 0;
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
    counts.all += m;
  }
}

struct Candidates {
  std::vector<uint32_t> key, place;
};

// Keep what is certain, keys above `high`; and add the candidates, keys in [low, high], by their place in the chunk.
void keep_above(const float* score, const uint8_t* alive, int64_t n, uint32_t low, uint32_t high, uint8_t* keep,
                Candidates& found) {
  uint32_t key[PIECE], place[PIECE], taken[PIECE + 16];
  uint8_t maybe[PIECE];
  for (int64_t at = 0; at < n; at += PIECE) {
    int64_t size = std::min(PIECE, n - at);
    keys_of(score + at, size, key);
    for (int64_t i = 0; i < size; i++) {
      uint8_t lives = alive ? alive[at + i] : 1;
      keep[at + i] = lives & (key[i] > high) & (key[i] != NOT_A_NUMBER);
      maybe[i] = lives & (key[i] >= low) & (key[i] <= high);
      place[i] = uint32_t(at + i);
    }
    int64_t m = compress(place, maybe, size, taken);
    found.place.insert(found.place.end(), taken, taken + m);
    compress(key, maybe, size, taken);
    found.key.insert(found.key.end(), taken, taken + m);
  }
}

// The `wanted`-th largest key of all candidates, which agree in their first digit: by their second, then by selection.
uint32_t cut_of(const std::vector<Candidates>& chunks, int64_t wanted) {
  constexpr int LEFT = 9, SECOND = 1 << (SHIFT - LEFT);
  std::vector<int64_t> count(SECOND);
  for (const Candidates& found : chunks)
    for (uint32_t key : found.key) count[(key >> LEFT) % SECOND]++;
  uint32_t digit = SECOND - 1;
  while (count[digit] < wanted) wanted -= count[digit--];
  std::vector<uint32_t> rest;
  for (const Candidates& found : chunks)
    for (uint32_t key : found.key)
      if ((key >> LEFT) % SECOND == digit) rest.push_back(key);
  std::nth_element(rest.begin(), rest.end() - wanted, rest.end());
  return *(rest.end() - wanted);
}

// Keep the best `wanted` candidates, of equal ones the last; false where NaN takes so much room that too few remain.
bool keep_candidates(const std::vector<Candidates>& chunks, int64_t wanted, int64_t nans, uint8_t* keep) {
  const uint32_t cut = cut_of(chunks, wanted);
  int64_t above = 0, tied = 0;
  for (const Candidates& found : chunks)
    for (uint32_t key : found.key) above += key > cut, tied += key == cut;
  const int64_t missing = wanted + nans - above;  // NaN ranks first and is never kept: the tied stand in
  if (missing > tied) return false;
  for (const Candidates& found : chunks) {
    for (size_t i = 0; i < found.key.size(); i++)
      keep[found.place[i]] = found.key[i] > cut || (found.key[i] == cut && tied-- <= missing);
    keep += CHUNK;
  }
  return true;
}

// --- ranks: the best of each short row ----------------------------------------------------------------------------

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

}  // namespace

extern "C" {

// keep [n] = the `count` best of the living; 1: too few live, or the scores hold NaN.
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

  int64_t all = 0, wanted = count;
  for (const Counts& x : counts) all += x.all;
  if (count < 0 || count > all) return 1;
  if (count == 0 || count == all) {
    for (int64_t i = 0; i < n; i++) keep[i] = count && (!alive || alive[i]);
    return 0;
  }
  int digit = BINS - 1;
  while (held(digit) < wanted) wanted -= held(digit--);
  const uint32_t low = uint32_t(digit) << SHIFT, high = low | ((1u << SHIFT) - 1);

  std::vector<Candidates> candidates(chunks);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
  for (int64_t c = 0; c < chunks; c++)
    keep_above(score + c * CHUNK, living(c), part(c), low, high, keep + c * CHUNK, candidates[c]);
  return !keep_candidates(candidates, wanted, held(BINS - 1), keep);
}

// keep [n, t] = the `count` best of every row [n, t] that live.
void keep_best_rows(const float* score, const uint8_t* alive, int64_t n, int t, int count, uint8_t* keep, int threads) {
  for_ranks(score, alive, n, t, threads, [=](int64_t at, int size, uint8_t* rank) {
    const uint8_t limit = uint8_t(count);
    for (int i = 0; i < size; i++) rank[i] = rank[i] < limit;
    if (alive)
      for (int i = 0; i < size; i++) rank[i] &= alive[at + i];
    memcpy(keep + at, rank, size);
  });
}

// rank [n, t] of every entry in its row.
void ranks(const float* score, int64_t n, int t, uint8_t* rank, int threads) {
  for_ranks(score, nullptr, n, t, threads,
            [=](int64_t at, int size, uint8_t* found) { memcpy(rank + at, found, size); });
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
