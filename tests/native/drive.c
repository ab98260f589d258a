// Calls one function of a library with arguments from a file, so that valgrind need not run Python:
//
//     drive LIBRARY FUNCTION FILE
//
// The file holds arguments of 16 bytes and more: a kind (0: an integer, 1: memory), a size or the integer, and the memory.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef int64_t (*Function)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                            int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                            int64_t, int64_t, int64_t, int64_t);

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  void* library = dlopen(argv[1], RTLD_NOW);
  if (!library) return fprintf(stderr, "%s\n", dlerror()), 3;
  Function function = (Function)dlsym(library, argv[2]);
  FILE* file = fopen(argv[3], "rb");
  if (!function || !file) return 4;
  int64_t a[24] = {0}, head[2];
  for (int i = 0; fread(head, sizeof head, 1, file) == 1; i++) {
    if (i == 24) return 5;
    a[i] = head[1];
    if (!head[0]) continue;
    void* memory = aligned_alloc(64, (head[1] + 127) / 64 * 64);
    if (fread(memory, 1, head[1], file) != (size_t)head[1]) return 6;
    a[i] = (int64_t)memory;
  }
  function(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15], a[16], a[17],
           a[18], a[19], a[20], a[21], a[22], a[23]);
  return 0;
}
