"""Native code: C++ sources shipped with the package, compiled on first use (floor 0)."""

import ctypes
import functools
import hashlib
import os
import subprocess
from pathlib import Path

CPP = Path(__file__).parent / "cpp"


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """The compiled ``cpp/NAME.cpp``, or None where it cannot be had."""
    import torch  # noqa: F401  first, so that one OpenMP runtime is shared

    flavour = {"avx512": ["-march=native"], "avx2": ["-mavx2", "-mfma"], "portable": []}
    flags = ["-std=c++17", "-O3", *flavour[os.environ.get("CAMPFIRE_ISA", "avx512")], "-fopenmp", "-shared", "-fPIC"]
    texts = [" ".join(flags).encode(), *(p.read_bytes() for p in [CPP / f"{name}.cpp", *sorted(CPP.glob("*.h"))])]
    cache = Path(os.environ.get("CAMPFIRE_CACHE", Path.home() / ".cache" / "campfire" / "native"))
    built = cache / f"{name}-{hashlib.sha256(b''.join(texts)).hexdigest()[:16]}.so"
    if not built.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = built.with_suffix(f".{os.getpid()}")
        subprocess.run(["c++", *flags, str(CPP / f"{name}.cpp"), "-o", str(part)], check=True)
        part.replace(built)
    return ctypes.CDLL(str(built))
