"""Tiny sources, and builds of them, for tests of the mechanism."""

import stat
import sys
from pathlib import Path

from campfire.native.building import Build
from campfire.native.compilers import Compiler, compiler
from campfire.native.flavours import flavour, flavour_names

FLAVOURS = flavour_names()  # that this CPU runs

ANSWER = """
#include "number.h"
extern "C" int answer() { return NUMBER; }
extern "C" int threads() {
  int n = 0;
#pragma omp parallel for reduction(+ : n) num_threads(2)
  for (int i = 0; i < 8; i++) n++;
  return n;
}
"""


def written(folder: Path, number: int = 42) -> Path:
    """A folder with one source, ``answer.cpp``, and one header."""
    if not folder.exists():  # another process may be reading
        folder.mkdir(parents=True)
        (folder / "answer.cpp").write_text(ANSWER)
        (folder / "number.h").write_text(f"#define NUMBER {number}\n")
    return folder


def small_build(folder: Path, kind: str = "portable", by: Compiler | None = None) -> Build:
    """A quick build of it."""
    return Build("answer", flavour(kind), by or compiler(), written(folder), level="-O1")


def script(path: Path, body: str) -> Path:
    """An executable that stands where a compiler should."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
