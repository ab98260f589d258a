"""Every method with structures of every kind, from the command line: it trains to its budget, or is refused with a reason."""

import json
import re
from pathlib import Path

import pytest

from campfire.cli import main
from campfire.methods import REGISTRY

DATA = ["synthetic:images=64,size=16", "--model", "resnet8", "--model-kwargs", "width=0.5", "-b", "16", "--epochs", "4",
        "--threads", "1"]  # fmt: skip
STRUCTURES = ("fine", "ck", "window", "filter", "tiles:rows=4,channels=2", "hrbp:rows=8,channels=2", "hrbp++:rows=8")
FILTERS = ("prunetrain", "l1-filter")  # they remove filters and nothing else

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("method", sorted(REGISTRY))
def test_it_trains_or_says_why_not(
    method: str, structure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, flags = str(tmp_path / "run"), ["--method", method, "--structure", structure]
    code = main(["train", *DATA, *flags, "--sparsity", "0.5", "-o", run, "--json"])
    out, err = capsys.readouterr()
    if method in FILTERS and structure != "filter":
        assert code == 2
        assert re.search(
            f"it removes whole filters, .* has structure {re.escape(repr(structure))}; use structure 'filter'", err
        )
        return
    assert code == 0, err
    coarse = structure == "window"  # its zeros come in ninths
    assert json.loads(out)["sparsity_true"] == pytest.approx(0.5, abs=0.06 if coarse else 0.03)
    assert main(["eval", run]) == 0


@pytest.mark.parametrize("allocation", ["erk", "global"])
@pytest.mark.parametrize("method", sorted(set(REGISTRY) - set(FILTERS)))
def test_regrouped_blocks_under_every_allocation(method: str, allocation: str, tmp_path: Path) -> None:
    run, flags = str(tmp_path / "run"), ["--method", method, "--allocation", allocation, "--structure", "hrbp++:rows=8"]
    assert main(["train", *DATA, *flags, "--sparsity", "0.7", "-o", run, "--json"]) == 0
    report = json.loads((tmp_path / "run" / "sparsity.json").read_text())
    true = [x["true"] for x in report["layers"] if x["structure"]]
    assert report["pruned"]["sparsity"] == pytest.approx(0.7, abs=0.05)
    assert max(true) - min(true) > 0.1
    assert main(["eval", run]) == 0
