// Packed values into a dense weight and back: a chunk is cleared and filled while it is in the nearest cache.
// `where` rises: element i of the sorted values belongs at where[i]; it is value[which[i]], or value[i] without `which`.
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t CHUNK = 1 << 13;  // elements of the dense weight that one thread fills at a time
constexpr int64_t FEW = 1 << 15;    // values or weights up to which waking other threads takes longer than the work

struct Bfloat16 {
  uint16_t bits;
};

template <class From, class To>
To as(From x) {
  return x;
}

template <>
Bfloat16 as(float x) {  // rounded to even, as torch does
  uint32_t bits;
  memcpy(&bits, &x, 4);
  bits = x != x ? 0x7fc00000u : bits + 0x7fff + (bits >> 16 & 1);
  return {uint16_t(bits >> 16)};
}

template <>
float as(Bfloat16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}

template <class From, class To>
void unpack(const From* value, const int32_t* where, const int32_t* which, int64_t n, To* dense, int64_t size) {
#pragma omp parallel for schedule(static) if (size > FEW)
  for (int64_t chunk = 0; chunk < (size + CHUNK - 1) / CHUNK; chunk++) {
    int64_t from = chunk * CHUNK, to = std::min(size, from + CHUNK);
    memset(dense + from, 0, (to - from) * sizeof(To));
    int64_t i = std::lower_bound(where, where + n, int32_t(from)) - where;
    int64_t end = to == size ? n : std::lower_bound(where + i, where + n, int32_t(to)) - where;
    if (which)
      for (; i < end; i++) dense[where[i]] = as<From, To>(value[which[i]]);
    else
      for (; i < end; i++) dense[where[i]] = as<From, To>(value[i]);
  }
}

template <class From, class To>
void pick(const From* dense, const int32_t* where, const int32_t* which, int64_t n, To* value) {
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t i = 0; i < n; i++) value[which ? which[i] : i] = as<From, To>(dense[where[i]]);
}

}  // namespace

extern "C" {

// An element has `bytes` bytes, 2, 4 or 8, on both sides; 0: values are float32, the dense weight is bfloat16.
void campfire_unpack(int64_t bytes, const void* value, const int32_t* where, const int32_t* which, int64_t n, void* dense,
                     int64_t size) {
  if (bytes == 0) unpack((const float*)value, where, which, n, (Bfloat16*)dense, size);
  if (bytes == 2) unpack((const uint16_t*)value, where, which, n, (uint16_t*)dense, size);
  if (bytes == 4) unpack((const uint32_t*)value, where, which, n, (uint32_t*)dense, size);
  if (bytes == 8) unpack((const uint64_t*)value, where, which, n, (uint64_t*)dense, size);
}

void campfire_pick(int64_t bytes, const void* dense, const int32_t* where, const int32_t* which, int64_t n, void* value) {
  if (bytes == 0) pick((const Bfloat16*)dense, where, which, n, (float*)value);
  if (bytes == 2) pick((const uint16_t*)dense, where, which, n, (uint16_t*)value);
  if (bytes == 4) pick((const uint32_t*)dense, where, which, n, (uint32_t*)value);
  if (bytes == 8) pick((const uint64_t*)dense, where, which, n, (uint64_t*)value);
}
}
