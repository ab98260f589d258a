"""Flavours: the vector instructions a library is compiled for, and which of them this CPU can run."""

import functools
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from campfire.errors import DoesNotFit, UnknownName


@dataclass(frozen=True)
class Flavour:
    """A set of instructions, as compiler flags."""

    name: str
    flags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # features of a CPU, as Linux spells them
    tuned: bool = False  # for the very CPU that compiles: no other may load it


_AVX2 = ("avx2", "fma")
_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq")
_AMX = ("amx_tile", "amx_bf16")
_TUNED = ("-march=native", *(f"-m{x}" for x in _AVX2 + _AVX512))
FLAVOURS = {
    f.name: f
    for f in (  # the best first
        # no flags for the instructions themselves: a compiler that does not know them still builds all the rest
        Flavour("amx", (*_TUNED, "-DCAMPFIRE_AMX"), _AVX2 + _AVX512 + _AMX, tuned=True),
        Flavour("avx512", _TUNED, _AVX2 + _AVX512, tuned=True),
        Flavour("avx2", tuple(f"-m{x}" for x in _AVX2), _AVX2),
        Flavour("portable"),
    )
}


@dataclass(frozen=True)
class Cpu:
    """What this machine's CPU is called, and what it can do."""

    name: str
    features: frozenset[str]

    def lacks(self, flavour: Flavour) -> list[str]:
        """The features that a flavour needs and this CPU has not.

        >>> Cpu("an old one", frozenset({"avx2", "fma"})).lacks(FLAVOURS["avx2"])
        []
        """
        return [x for x in flavour.needs if x not in self.features]


@functools.cache
def this_cpu() -> Cpu:
    """This machine's CPU; without features where the system does not tell them."""
    return read_cpu(Path("/proc/cpuinfo"))


def has_amx() -> bool:
    """Whether this CPU multiplies tiles of bfloat16, as the dense library then does too."""
    return set(_AMX) <= this_cpu().features


def read_cpu(file: Path) -> Cpu:
    """The first CPU that a file like ``/proc/cpuinfo`` tells of."""
    try:
        lines = file.read_text(errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = told.get("model name") or platform.processor() or platform.machine()
    return Cpu(name, frozenset(told.get("flags", "").split()))


def flavour(name: str | None = None, cpu: Cpu | None = None) -> Flavour:
    """The flavour called so; without a name the one in ``CAMPFIRE_ISA``, or the best that this CPU runs.

    >>> flavour("portable").flags
    ()

    Raises:
        UnknownName: there is no such flavour.
        DoesNotFit: this CPU cannot run it.
    """
    kind, cpu = "flavour" if name else "flavour (CAMPFIRE_ISA)", cpu or this_cpu()
    if not (wanted := name or os.environ.get("CAMPFIRE_ISA", "")):
        return next(f for f in FLAVOURS.values() if not cpu.lacks(f))
    if wanted not in FLAVOURS:
        raise UnknownName(kind, wanted, FLAVOURS)
    if missing := cpu.lacks(FLAVOURS[wanted]):
        best = flavour_names(cpu)
        raise DoesNotFit(
            f"{kind} {wanted!r}", "this CPU", [f"{cpu.name} has no {', '.join(missing)}; it runs {' and '.join(best)}"]
        )
    return FLAVOURS[wanted]


def flavour_names(cpu: Cpu | None = None) -> list[str]:
    """The flavours that a CPU runs, the best first."""
    return [name for name, f in FLAVOURS.items() if not (cpu or this_cpu()).lacks(f)]
