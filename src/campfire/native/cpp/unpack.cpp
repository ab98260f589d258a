// Packed values into a dense weight and back: a chunk is cleared and filled while it is in the nearest cache.
// `where` rises: element i of the sorted values belongs at where[i]; it is value[which[i]], or value[i] without `which`.
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t CHUNK = 1 << 13;  // elements of the dense weight that one thread fills at a time

template <class T>
void unpack(const T* value, const int32_t* where, const int32_t* which, int64_t n, T* dense, int64_t size) {
#pragma omp parallel for schedule(static)
  for (int64_t chunk = 0; chunk < (size + CHUNK - 1) / CHUNK; chunk++) {
    int64_t from = chunk * CHUNK, to = std::min(size, from + CHUNK);
    memset(dense + from, 0, (to - from) * sizeof(T));
    int64_t i = std::lower_bound(where, where + n, int32_t(from)) - where;
    int64_t end = to == size ? n : std::lower_bound(where + i, where + n, int32_t(to)) - where;
    if (which)
      for (; i < end; i++) dense[where[i]] = value[which[i]];
    else
      for (; i < end; i++) dense[where[i]] = value[i];
  }
}

template <class T>
void pick(const T* dense, const int32_t* where, const int32_t* which, int64_t n, T* value) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i++) value[which ? which[i] : i] = dense[where[i]];
}

}  // namespace

extern "C" {

// An element has `bytes` bytes: 2, 4 or 8.
void campfire_unpack(int32_t bytes, const void* value, const int32_t* where, const int32_t* which, int64_t n, void* dense,
                     int64_t size) {
  if (bytes == 2) unpack((const uint16_t*)value, where, which, n, (uint16_t*)dense, size);
  if (bytes == 4) unpack((const uint32_t*)value, where, which, n, (uint32_t*)dense, size);
  if (bytes == 8) unpack((const uint64_t*)value, where, which, n, (uint64_t*)dense, size);
}

void campfire_pick(int32_t bytes, const void* dense, const int32_t* where, const int32_t* which, int64_t n, void* value) {
  if (bytes == 2) pick((const uint16_t*)dense, where, which, n, (uint16_t*)value);
  if (bytes == 4) pick((const uint32_t*)dense, where, which, n, (uint32_t*)value);
  if (bytes == 8) pick((const uint64_t*)dense, where, which, n, (uint64_t*)value);
}
}
