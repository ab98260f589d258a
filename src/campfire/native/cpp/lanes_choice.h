// Which register tiles are compiled: any number of rows, some numbers of columns, as many sums as there are registers.
#pragma once

template <typename Run>
struct Choice {
  using Function = void (*)(const Run&);

  template <template <int, int> class Kind, int LIMIT, int COLS, int ROWS = 1>
  static Function with_rows(int rows) {
    if constexpr (ROWS * COLS > LIMIT || ROWS > 8)
      return nullptr;
    else
      return rows == ROWS ? Kind<ROWS, COLS>::run : with_rows<Kind, LIMIT, COLS, ROWS + 1>(rows);
  }

  // Null where there is no such tile.
  template <template <int, int> class Kind, int LIMIT>
  static Function of(int rows, int cols) {
    switch (cols) {
      case 3: return with_rows<Kind, LIMIT, 3>(rows);
      case 4: return with_rows<Kind, LIMIT, 4>(rows);
      case 5: return with_rows<Kind, LIMIT, 5>(rows);
      case 6: return with_rows<Kind, LIMIT, 6>(rows);
      case 7: return with_rows<Kind, LIMIT, 7>(rows);
      case 8: return with_rows<Kind, LIMIT, 8>(rows);
      case 10: return with_rows<Kind, LIMIT, 10>(rows);
      case 12: return with_rows<Kind, LIMIT, 12>(rows);
      case 14: return with_rows<Kind, LIMIT, 14>(rows);
      default: return nullptr;
    }
  }
};
