"""Every check of a file is taken out, one at a time, and part by part: the hostile files of the suite notice each.

A check is an ``if`` that ends in ``raise``. What is joined by ``or`` in its condition is several; each is replaced by False.
"""

import ast
import inspect
import re
import types
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hostile_files import CASES, CONTAINERS, Attempt, a_file, damaged, edited, unwritable

from campfire.errors import CampfireError
from campfire.files import about, bits, coded, container, loading, saving, survivors
from campfire.files.loading import from_bytes

MODULES = (about, bits, coded, container, loading, saving, survivors)
ERRORS = ("CheckpointError", "UsageError", "CampfireError")


# --- faults ----------------------------------------------------------------------------------------------------------


def checks(function: ast.FunctionDef) -> Iterator[tuple[ast.If, list[ast.expr]]]:
    """The guards of a function, and the parts of each one's condition."""
    for node in ast.walk(function):
        if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise) and raised(node.body[-1]) in ERRORS:
            yield (
                node,
                node.test.values
                if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.Or)
                else [node.test],
            )


def raised(node: ast.Raise) -> str:
    return node.exc.func.id if isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name) else ""


def faults() -> Iterator[Any]:
    """(module, function, number of the check, number of its part) of every check there is."""
    for module in MODULES:
        for function in ast.parse(inspect.getsource(module)).body:
            if isinstance(function, ast.FunctionDef):
                for i, (_, parts) in enumerate(checks(function)):
                    for j in range(len(parts)):
                        stem = module.__name__.rpartition(".")[2]
                        yield pytest.param(module, function.name, i, j, id=f"{stem}.{function.name}-{i}-{j}")


def without(module: types.ModuleType, name: str, i: int, j: int) -> types.CodeType:
    """The function's code, part j of its check i being False."""
    tree = ast.parse(inspect.getsource(module))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    guard, parts = list(checks(function))[i]
    never = ast.Constant(value=False)
    if isinstance(guard.test, ast.BoolOp) and len(parts) > 1:
        guard.test.values[j] = ast.copy_location(never, parts[j])
    else:
        for body in ast.walk(guard.test):
            if isinstance(body, ast.NamedExpr):  # what a condition names is used behind it
                guard.test = ast.BoolOp(ast.And(), [guard.test, never])
                break
        else:
            guard.test = never
    whole = compile(ast.fix_missing_locations(tree), module.__file__ or "", "exec")
    return next(c for c in whole.co_consts if isinstance(c, types.CodeType) and c.co_name == name)


# --- hostile files ---------------------------------------------------------------------------------------------------


def hostile() -> Iterator[Attempt]:
    """What must be refused, and the words with which."""
    file = a_file()
    for case, (change, says) in CASES.items():
        limit = None if "bomb" in case else 10**6
        yield partial(from_bytes, edited(file, change), limit), says
    for data, says in (*CONTAINERS, *damaged()):
        yield partial(from_bytes, data), says
    yield from unwritable()


HOSTILE = list(hostile())


def missed() -> list[str]:
    """What is not refused as it should be."""
    found = []
    for run, says in HOSTILE:
        try:
            run()
        except CampfireError as error:
            if re.search(says, str(error)):
                continue
        except Exception:  # a crash is noticed
            pass
        found.append(says)
    return found


def test_nothing_is_missed_as_it_is() -> None:
    assert missed() == []
    assert len(list(faults())) > 40


@pytest.mark.parametrize(("module", "name", "i", "j"), list(faults()))
def test_each_fault_is_noticed(
    module: types.ModuleType, name: str, i: int, j: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getattr(module, name), "__code__", without(module, name, i, j))
    assert missed()
