"""CSV for programs and LaTeX for papers say what the other formats say, and nothing in a name is markup."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_extras import write_costs
from run_records import write_run

from campfire.report import render
from campfire.report.records.compare import load
from campfire.report.renderers.tabular import escape


def records(*paths) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(load(paths), "csv"))))


def test_csv_has_the_numbers_of_the_record(runs):
    write_costs(runs[1])
    dense, ck = records(*runs)
    row = load(runs).rows[1]
    assert (float(ck["top1"]), float(ck["gap"]), ck["against"]) == (row.top1, row.gap, "dense")
    assert (ck["file_bytes"], ck["references"], ck["best_epoch"]) == ("31000.0", "930000.0", "12.0")
    assert (dense["file_bytes"], dense["gap"]) == ("", "")


@pytest.mark.parametrize("name", ['a,"b"', "two\nlines", "\x1b[31mred"])
def test_a_name_is_one_cell(tmp_path, name):
    [row] = records(write_run(tmp_path / "run", model=name))
    assert row["model"] == re.sub(r"[\n\x1b]", "\N{REPLACEMENT CHARACTER}", name)


def test_latex_has_a_table_for_each(runs):
    text = render(load(runs), "latex")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    assert r"    {ck70} & {97.26} & {$-$0.45} & {99.80} & {70.00}" in text
    assert r"\itshape {paper: start 30} & \itshape {$-$1.57 / $-$1.42} \\" in text
    for table in re.findall(r"\\toprule(.*?)\\bottomrule", text, re.DOTALL):
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in table.splitlines() if "&" in line}) == 1


@given(st.text(alphabet=st.sampled_from("\\&%$#_{}~^<>|ab ")))
def test_latex_names_are_text(name):
    left = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]", "", escape(name))
    assert not set(left) & set("\\&%$#_{}~^<>|")
