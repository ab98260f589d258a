"""Patterns in reports: drawn, counted, and the compression that ClickTrain would quote."""

import json
from pathlib import Path

import pytest
import torch
from run_records import write_run
from torch import nn

from campfire import OneShot, Pruner
from campfire.report import write_run_report
from campfire.report.records.compare import load
from campfire.report.records.reading import read_run
from campfire.report.records.record import Layer
from campfire.report.renderers import terminal
from campfire.report.sections.patterns import HEAD, compression, drawing, fkw_bytes, lede, table


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two layers of the record have patterns, and one is a projection."""
    path = write_run(tmp_path / "run", structure="pattern", target=0.7)
    file = path / "sparsity.json"
    record = json.loads(file.read_text())
    record["layers"][1]["patterns"] = [[3, "000/011/011", 60], [12, "000/110/110", 17]]
    record["layers"][2]["patterns"] = [[12, "000/110/110", 77]]
    record["layers"][3] |= {"name": "layer1.0.downsample.0", "kept_weights": 1}
    file.write_text(json.dumps(record))
    return path


def test_patterns_are_drawn_with_their_share(run: Path) -> None:
    assert drawing(read_run(run)).splitlines() == [
        "#12      #3",
        "61.0 %   39.0 %",
        ". . .    . . .",
        "x x .    . x x",
        "x x .    . x x",
    ]


def test_a_row_for_each_layer_with_patterns(run: Path) -> None:
    rows = table(read_run(run))
    assert [len(row) for row in rows] == [len(HEAD)] * 2
    name, alive, count, often, stored, _ = rows[0]
    assert (name, count, often) == ("layer1.0.conv1", "2", "#3 77.92 %, #12 22.08 %")
    assert alive == "30.08"
    assert int(stored.replace(",", "")) == fkw_bytes(read_run(run).layers[1])


def test_compression_leaves_projections_out(run: Path) -> None:
    layers = [x for x in read_run(run).layers if "downsample" not in x.name]
    ratio = sum(x.weights or 0 for x in layers) / sum(x.kept_weights or 0 for x in layers)
    assert compression(read_run(run)) == pytest.approx(ratio)
    assert "2 patterns in 2 layers" in lede(read_run(run))


def test_u7_lengths_of_fkw() -> None:
    layer = Layer("a", (64, 64, 3, 3), kept_kernels=1843, kept_weights=7372, patterns=((1, "", 1),) * 4)
    assert fkw_bytes(layer) == 4 * 65 + 2 * (64 + 1843 + 320) + 4 * 7372


def test_every_report_shows_them(run: Path) -> None:
    text = write_run_report(run).read_text()
    assert "x x .    . x x" in text
    assert "most frequent" in text
    console = terminal.Console(width=120)
    with console.capture() as shown:
        console.print(terminal.render(load([run])))
    assert "x x .    . x x" in shown.get()
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    from campfire.report import write_report

    page = write_report([run], run).read_text()
    assert "x x .    . x x" in page
    assert "2 patterns in 2 layers" in page


def test_runs_without_patterns_show_none(tmp_path: Path) -> None:
    text = write_run_report(write_run(tmp_path / "ck")).read_text()
    assert "FKW" not in text
    assert "compressed" not in text


def test_a_pruner_records_what_is_in_use() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "pattern:book=auto:3", OneShot(0, 0.7)).attach(optimizer, 1)
    assert all(row.patterns == () for row in pruner.report().layers)
    model(torch.randn(1, 2, 8, 8)).sum().backward()
    optimizer.step()
    first, spatial, points = pruner.report().layers
    assert first.patterns == points.patterns == ()
    assert "connectivity only" in points.remark
    assert sum(kernels for *_, kernels in spatial.patterns) == spatial.kept_kernels
    assert len(spatial.patterns) <= 3
    counts = [kernels for *_, kernels in spatial.patterns]
    assert counts == sorted(counts, reverse=True)
