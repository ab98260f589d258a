"""bench/overhead.py on a tiny network: the same step with and without the pruner."""

import json
import runpy
import sys
from pathlib import Path

import pytest

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
