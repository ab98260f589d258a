// Exact selection and re-application of masks. Results equal the torch versions bit for bit, NaN, infinities and -0.0
// included, whatever the number of threads.
#include "best.h"
#include "rows.h"
#include "walks.h"

extern "C" {

// keep [n] = the `count` best of the living, or, if `absolute`, the largest; 1: too few live, or the scores hold NaN.
int keep_best(const float* score, const uint8_t* alive, int64_t n, int64_t count, int absolute, uint8_t* keep,
              int threads) {
  const uint32_t what = absolute ? MAGNITUDE : WHOLE;
  const int64_t chunks = (n + CHUNK - 1) / CHUNK;
  auto part = [&](int64_t c) { return std::min(CHUNK, n - c * CHUNK); };
  auto living = [&](int64_t c) { return alive ? alive + c * CHUNK : nullptr; };

  std::vector<Counts> counts(std::min<int64_t>(threads, chunks));
  const int workers = int(counts.size());
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
  for (int w = 0; w < workers; w++)
    for (int64_t c = w; c < chunks; c += workers) count_digits(score + c * CHUNK, living(c), part(c), what, counts[w]);
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
    keep_above(score + c * CHUNK, living(c), part(c), what, low, high, keep + c * CHUNK, candidates[c]);
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

// out [K, C, T] = |w| of a weight that lies as [K, T, C].
void magnitudes(const float* w, int64_t K, int64_t C, int64_t T, float* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (K * C * T > CHUNK)
  for (int64_t k = 0; k < K; k++) turn_magnitudes(w + k * C * T, C, T, out + k * C * T);
}

// best [K, C] = the largest |w| of each kernel of a weight [K, C, T], or, if `last`, [K, T, C].
void kernel_bests(const float* w, int64_t K, int64_t C, int64_t T, int last, float* best, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (K * C * T > CHUNK)
  for (int64_t k = 0; k < K; k++) largest(w + k * C * T, C, T, last ? 1 : T, last ? C : 1, best + k * C);
}

// out [n, t]: every entry of a row is the row's.
void spread(const uint8_t* row, int64_t n, int64_t t, uint8_t* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (n * t > CHUNK)
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < t; j++) out[i * t + j] = row[i];
}

// out [K, T, C] = a mask [K, C, T].
void turn(const uint8_t* mask, int64_t K, int64_t C, int64_t T, uint8_t* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (K * C * T > CHUNK)
  for (int64_t k = 0; k < K; k++) turn_mask(mask + k * C * T, C, T, out + k * C * T);
}

// Of every row [n, t] the best living score, 0 where none lives, and how many live.
void row_bests(const float* score, const uint8_t* alive, int64_t n, int t, float* best, int64_t* held, int threads) {
  const int64_t piece = std::max(ROOM / t, 1);
#pragma omp parallel for schedule(static) num_threads(threads) if (n * t > CHUNK)
  for (int64_t row = 0; row < n; row += piece)
    best_of_rows(score + row * t, alive + row * t, int(std::min(piece, n - row)), t, best + row, held + row);
}

// keep [n, t] = the `level` best that live of every row that stays; and of every row the score and the place of the next one.
void thin_rows(const float* score, const uint8_t* alive, const uint8_t* stays, int64_t n, int t, int level,
               uint8_t* keep, float* next, uint8_t* place, int threads) {
  for_ranks(score, alive, n, t, threads, [=](int64_t at, int size, uint8_t* rank) {
    next_of_rows(score + at, rank, size / t, t, level, next + at / t, place + at / t);
    for (int i = 0; i < size; i++) rank[i] = (rank[i] < level) & alive[at + i];
    for (int row = 0; row < size / t; row++) and_row(rank + row * t, stays[at / t + row], t);
    memcpy(keep + at, rank, size);
  });
}

// Add to `keep` [n, t] one entry of each row with more[row], that at its place.
void add_places(const uint8_t* place, const uint8_t* more, int64_t n, int t, uint8_t* keep) {
  for (int64_t row = 0; row < n; row++) keep[row * t + place[row]] |= more[row];
}

// out [n] = x times a mask of bytes, 0 or 1.
void product(const float* x, const uint8_t* mask, int64_t n, float* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (n > 4 * CHUNK)
  for (int64_t at = 0; at < n; at += CHUNK) times(x + at, mask + at, std::min(CHUNK, n - at), out + at);
}

// Multiply tensors by masks of bytes, 0 or 1, in place and in one pass over everything: mask m [size[m]] belongs to the
// tensors first[m] to first[m + 1] - 1. Where was[m] is given, they have been multiplied by that mask before.
void multiply(int64_t masks, const int64_t* size, const uint8_t* const* keep, const uint8_t* const* was,
              const int64_t* first, float* const* tensor, int threads) {
  std::vector<int64_t> strips(masks + 1);
  for (int64_t m = 0; m < masks; m++) strips[m + 1] = strips[m] + (size[m] + CHUNK - 1) / CHUNK;
#pragma omp parallel for schedule(static) num_threads(threads) if (strips[masks] > 4)
  for (int64_t s = 0; s < strips[masks]; s++) {
    int64_t m = std::upper_bound(strips.begin(), strips.end(), s) - strips.begin() - 1;
    int64_t at = (s - strips[m]) * CHUNK, n = std::min(CHUNK, size[m] - at);
    const uint8_t* mask = keep[m] + at;
    for (int64_t k = first[m]; k < first[m + 1]; k++) {
      float* x = tensor[k] + at;
      if (was[m])
        times_where_new(x, mask, was[m] + at, n);
      else
        times_in_place(x, mask, n);
    }
  }
}
}
