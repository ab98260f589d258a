"""The floors of the house: a module imports only from floors below its own, or its own folder (DESIGN, section 3)."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import campfire

ROOT = pathlib.Path(campfire.__file__).parent
FLOORS = [
    {"errors", "_version"},
    {"extras", "schedules", "allocations", "config", "spelling", "native"},
    {"mask", "naming", "scores", "selection", "sparsity", "attack", "data", "models", "sweep"},
    {"structures", "packed", "methods", "quantise"},
    {"pruner", "couplings", "costs", "kernels"},
    {"nn", "testing"},
    {"compress", "fusion"},
    {"files"},
    {"export", "report"},
    {"training"},
    {"bench"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {name: i for i, floor in enumerate(FLOORS) for name in floor}


def imported(tree: ast.AST) -> set[str]:
    """Top-level parts of campfire that a module imports, ``from campfire import x`` included; `TYPE_CHECKING` too."""
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "campfire" else [node.module]
        else:
            continue
        parts |= {([*n.split("."), "__init__"])[1] for n in names if n.split(".")[0] == "campfire"}
    return parts


def violations(path: pathlib.Path, source: str) -> list[str]:
    here = path.relative_to(ROOT).with_suffix("").parts[0]
    low = [p for p in imported(ast.parse(source)) if p != here and FLOOR.get(p, FLOOR["__init__"]) >= FLOOR[here]]
    # a module of the package may name things that only `campfire/__init__` re-exports: that is the top floor
    return [f"{path.relative_to(ROOT)} (floor {FLOOR[here]}) imports {p}" for p in sorted(low)]


def test_every_module_has_a_floor() -> None:
    parts = {p.relative_to(ROOT).with_suffix("").parts[0] for p in ROOT.rglob("*.py")}
    assert parts <= set(FLOOR), f"give these a floor: {sorted(parts - set(FLOOR))}"


def test_imports_go_down() -> None:
    bad = [
        v for p in ROOT.rglob("*.py") if p.parent != ROOT or p.stem != "__init__" for v in violations(p, p.read_text())
    ]
    assert not bad, "\n".join(bad)


def test_an_upward_import_is_caught() -> None:
    planted = "from campfire.pruner import Pruner\nimport campfire.train\nfrom campfire import cli"
    assert len(violations(ROOT / "mask.py", planted)) == 3


def runs(code: str) -> bool:
    """Whether a new process that imports these very sources, installed or not, ends well."""
    places = os.pathsep.join(filter(None, [str(ROOT.parent), os.environ.get("PYTHONPATH")]))
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": places}).returncode == 0


def test_files_are_short() -> None:
    long = {str(p.relative_to(ROOT)): n for p in ROOT.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long, f"split by idea: {long}"


@pytest.mark.parametrize(
    "module",
    ["campfire", "campfire.cli", "campfire.cli.sweep", "campfire.config", "campfire.schedules", "campfire.allocations"],
)
def test_these_never_import_torch(module: str) -> None:
    assert runs(f"import sys, {module}; sys.exit('torch' in sys.modules)")


def test_networks_and_files_need_no_compiler() -> None:
    """`torch._dynamo` takes seconds to import: it waits for `torch.compile`, or for an optimizer, which brings it along."""
    pytest.importorskip("torch")
    code = """
import sys, torch, campfire.files, campfire.fusion, campfire.nn, campfire.training
model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 16, 3))
pruner = campfire.Pruner(model, "ck", campfire.OneShot(0, 0.5))
with torch.no_grad():
    campfire.fuse(model)(torch.ones(1, 3, 8, 8))
sys.exit("torch._dynamo" in sys.modules)
"""
    assert runs(code)
