"""bench/overhead.py on a tiny network: the same step with and without the pruner, and the time in its hooks."""

import json
import runpy
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from campfire import Era, Pruner
from campfire.pruner.layer import PrunedLayer

SCRIPT = Path(__file__).parents[2] / "bench" / "overhead.py"


@pytest.mark.parametrize("model", [["--model", "resnet8", "--width", "0.5"], ["--model", "resnet18", "--size", "40"]])
def test_a_step_with_and_without(
    model: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *model, "--batch", "2", "--steps", "1", "--rounds", "3", "--fp32"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    found = json.loads(capsys.readouterr().out)
    assert found["without_ms"] > 0
    assert found["with_ms"] > 0
    assert found["ratio"] > 0
    assert found["own_ms"] > 0
    assert found["own_share"] == pytest.approx(found["own_ms"] / found["without_ms"])


@pytest.mark.parametrize("slow", [(PrunedLayer, "_masked"), (Pruner, "_before_step"), (Pruner, "_after_step")])
def test_the_clock_runs_while_the_pruner_works(slow: tuple[type, str], monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name = slow
    work = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given: (time.sleep(0.01), work(*given))[1])
    clock, model = runpy.run_path(str(SCRIPT))["Clock"](), nn.Sequential(nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clock.around(Pruner(model, "ck", Era(0, 3.99, 0.7)), optimizer, 4)
    model(torch.randn(1, 16, 8, 8)).sum().backward()
    optimizer.step()
    assert clock.total >= 0.01
