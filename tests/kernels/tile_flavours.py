"""The tile kernels on any CPU: their own sources with the tiles emulated, in place of what dispatch would load."""

import ctypes
import functools
from dataclasses import replace

import pytest

from campfire import native
from campfire.kernels import KERNELS, cost
from campfire.kernels.blocks import amx as blocks_amx
from campfire.native.building import Build
from campfire.native.compilers import BuildFailed, compiler
from campfire.native.flavours import FLAVOURS, Flavour, has_amx, this_cpu
from campfire.native.loading import cache_folder
from campfire.native.store import Store

RUNS = ["emulated portable", "emulated avx512", *["amx"] * has_amx()]


def emulated(kind: Flavour) -> Flavour:
    return replace(kind, name=f"{kind.name}-tiles", flags=(*kind.flags, "-DCAMPFIRE_EMULATE_TILES"))


@functools.cache
def library(name: str, flavour: str) -> ctypes.CDLL:
    return Store(cache_folder()).load(Build(name, emulated(FLAVOURS[flavour]), compiler()))


def use(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of `RUNS`; skips what cannot run here."""
    if run == "amx":
        if reasons := KERNELS["blocks-amx"].why_no_code():  # pyright: ignore[reportAttributeAccessIssue]
            pytest.skip(reasons[0])
        return
    flavour, real = run.split()[1], native.library
    if missing := this_cpu().lacks(FLAVOURS[flavour]):
        pytest.skip(f"no {missing[0]} on this CPU")
    try:
        compiler()
    except BuildFailed as error:
        pytest.skip(str(error))
    monkeypatch.setattr(native, "library", lambda name: library(name, flavour) if "amx" in name else real(name))
    monkeypatch.setattr(blocks_amx, "has_amx", lambda: True)
    monkeypatch.setattr(cost, "has_amx", lambda: True)
