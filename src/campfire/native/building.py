"""A build: one source in one flavour by one compiler; its key tells it from every other."""

import functools
import hashlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from campfire.errors import UnknownName
from campfire.native.compilers import Compiler
from campfire.native.flavours import Flavour, this_cpu

CPP = Path(__file__).parent / "cpp"
# Exact: no -ffast-math; `a * b + c` may be fused, which rounds less.
COMMON = ("-std=c++17", "-fno-math-errno", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC")


@dataclass(frozen=True)
class Build:
    """One source in one flavour by one compiler."""

    name: str
    flavour: Flavour
    compiler: Compiler
    folder: Path = CPP
    level: str = "-O3"

    @property
    def source(self) -> Path:
        return self.folder / f"{self.name}.cpp"

    @property
    def flags(self) -> tuple[str, ...]:
        return (self.level, *self.flavour.flags, *COMMON)

    @functools.cached_property
    def key(self) -> str:
        """Changes with the source, any header beside it, the flags, the compiler and, where it matters, the CPU."""
        cpu = this_cpu()
        told = [*self.flags, self.flavour.name, str(self.compiler), self.compiler.version, platform.machine()]
        told += [cpu.name, *sorted(cpu.features)] if self.flavour.tuned else []
        digest = hashlib.sha256("\0".join(told).encode())
        for name, content in self._contents():
            digest.update(f"\0{name}\0".encode() + content)
        return digest.hexdigest()

    def _contents(self) -> Iterator[tuple[str, bytes]]:
        """All files it is made of."""
        for file in [self.source, *sorted(self.folder.glob("*.h"))]:
            yield file.name, file.read_bytes()

    @property
    def stem(self) -> str:
        """The file name it has in a cache, without its ending."""
        return f"{self.name}-{self.flavour.name}-{self.key[:16]}"

    def compile(self, target: Path) -> None:
        """Make the library; raises `BuildFailed`."""
        self.compiler.compile(self.source, target, self.flags)


def sources(folder: Path = CPP) -> list[str]:
    """The names of all native libraries.

    >>> "masks" in sources()
    True
    """
    return sorted(p.stem for p in folder.glob("*.cpp"))


def check_name(name: str, folder: Path = CPP) -> None:
    """Raise `UnknownName` where there is no such source."""
    if not (folder / f"{name}.cpp").is_file():
        raise UnknownName("native library", name, sources(folder))
