// The best of many scores: a histogram of their first digits, and selection in the one bin that matters. Chunks are fixed, counts
// are integers, candidates are kept in order: the result is the same for any number of threads.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t CHUNK = 1 << 14;  // entries that one thread takes at a time
constexpr int64_t PIECE = 1024;     // entries whose keys stay in the nearest cache
constexpr int SHIFT = 19, BINS = 1 << (32 - SHIFT);  // the first digit: sign, exponent and 4 bits of the fraction
constexpr uint32_t NOT_A_NUMBER = ~0u;

// The bits of a float that count: all of them, or those of its magnitude.
constexpr uint32_t WHOLE = ~0u, MAGNITUDE = ~0u >> 1;

// Unsigned integers in the order of the floats; -0.0 equals 0.0, and NaN is above all, as numpy sorts it.
inline uint32_t key_of(float x, uint32_t what) {
  float sum = x + 0.0f;
  uint32_t bits;
  memcpy(&bits, &sum, 4);
  bits &= what;
  uint32_t key = bits ^ (uint32_t(int32_t(bits) >> 31) | 0x80000000u);
  return key | -uint32_t(x != x);
}

inline void keys_of(const float* score, int64_t n, uint32_t what, uint32_t* key) {
  for (int64_t i = 0; i < n; i++) key[i] = key_of(score[i], what);
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
void count_digits(const float* score, const uint8_t* alive, int64_t n, uint32_t what, Counts& counts) {
  uint32_t key[PIECE], living[PIECE + 16];
  for (int64_t at = 0; at < n; at += PIECE) {
    int64_t size = std::min(PIECE, n - at), m = size;
    keys_of(score + at, size, what, key);
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
void keep_above(const float* score, const uint8_t* alive, int64_t n, uint32_t what, uint32_t low, uint32_t high,
                uint8_t* keep, Candidates& found) {
  uint32_t key[PIECE], place[PIECE], taken[PIECE + 16];
  uint8_t maybe[PIECE];
  for (int64_t at = 0; at < n; at += PIECE) {
    int64_t size = std::min(PIECE, n - at);
    keys_of(score + at, size, what, key);
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

}  // namespace
