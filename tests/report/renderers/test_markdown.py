"""Markdown needs no extra, shows what it is given, and nothing in it is markup."""

import re
import sys

import pytest
from run_records import write_run

from campfire.report import write_run_report
from campfire.report.contents import sections
from campfire.report.records.compare import load
from campfire.report.renderers.markdown import render


def tables(text: str) -> list[list[list[str]]]:
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    return [[[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block] for block in blocks]


def test_the_comparison_has_a_row_a_run(runs):
    results, identity, *_ = tables(render(load(runs)))
    assert [row[0] for row in results[2:]] == ["dense", "ck70"]
    ck = dict(zip(results[0], results[3], strict=True))
    assert ck["vs dense, points"] == "\N{MINUS SIGN}0.45"
    assert (ck["zeros requested, %"], ck["in pruned layers, %"]) == ("70.00", "70.00")
    assert ck["kept MACs, %"] == "31.71 (13.0 M)"
    about = dict(zip(identity[0], identity[3], strict=True))
    assert (about["structure"], about["method"], about["epochs"]) == ("ck", "gradual", "12")


def test_every_table_is_rectangular_and_padded(runs):
    text = render(load(runs))
    for block in (b for b in text.split("\n\n") if b.startswith("|")):
        assert len({len(line) for line in block.splitlines()}) == 1
    for table in tables(text):
        assert len({len(row) for row in table}) == 1


def test_dense_layers_carry_their_reason(runs):
    layers = next(table for table in tables(render(load(runs[1:]))) if table[0][0] == "layer")
    assert len(layers) == 2 + 19
    assert (layers[2][0], layers[2][2], layers[2][-1]) == ("conv1", "dense", "outside the rules")


def test_long_runs_are_thinned_with_both_ends(tmp_path):
    text = render(load([write_run(tmp_path / "long", epochs=400)]))
    epochs = next(table for table in tables(text) if table[0][0] == "epoch")
    assert (len(epochs), epochs[2][0], epochs[-1][0]) == (2 + 25, "1", "400")
    assert "25 of 400" in text


@pytest.mark.parametrize(
    "name", ["<script>x</script>", "a|b", "![x](http://evil)", "`code`", "two\nlines", "\x1b[31mred"]
)
def test_names_are_text(tmp_path, name):
    text = render(load([write_run(tmp_path / "run", model=name)]))
    assert "<script" not in text.replace("\\<", "")
    assert "\x1b" not in text
    assert "![x](" not in text
    assert all(len({len(row) for row in table}) == 1 for table in tables(text))


def test_a_run_gets_its_own_report_without_any_extra(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    path = write_run_report(runs[1])
    report = load([runs[1]])
    assert path == runs[1] / "report.md"
    assert path.read_text(encoding="utf-8") == render(report, sections(report, draw=False))
    assert sorted(p.name for p in runs[1].iterdir() if "report" in p.name) == ["report.md"]
