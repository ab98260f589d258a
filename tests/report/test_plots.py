"""What is drawn: the points, the dense layers, the colours; whatever matplotlib was told elsewhere."""

import math
import re
from xml.etree import ElementTree

import matplotlib
import pytest
from run_records import write_run

from campfire.report import plots, svg
from campfire.report.reading import read_run, read_runs


def strokes(text: str, colour: str) -> list[int]:
    """The number of points of each line in that colour."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', text)
    return [len(re.findall(r"[ML]", d)) for d, style in paths if f"stroke: {colour}" in style and "fill: none" in style]


def test_a_curve_is_thinned_to_a_thousand_points(tmp_path):
    lines = plots._lines([read_run(write_run(tmp_path / "long", epochs=3000))], plots.CURVES["accuracy"])
    assert [len(line.at) for line in lines] == [1000]
    assert (lines[0].at[0], lines[0].at[-1]) == (0, 2999)


def test_every_run_has_its_line_in_its_colour(runs):
    drawn = plots.curves(read_runs(runs))
    assert list(drawn) == ["sparsity", "accuracy", "loss"]
    for text in drawn.values():
        assert sum(n > 8 for n in strokes(text, "var(--ink, #1f2328)")) == 2  # dense, strong and thin
        assert sum(n > 8 for n in strokes(text, "var(--series-0, #0072b2)")) == 2
        assert "#0505" not in text


def test_the_requested_sparsity_is_drawn_thin_beneath_the_true_one(runs):
    run = read_run(runs[1])
    line = plots._lines([run], plots.CURVES["sparsity"])[0]
    assert line.strong == [100 * e.sparsity_true for e in run.epochs]
    assert line.thin == [100 * e.sparsity_requested for e in run.epochs]
    assert line.strong[-1] == 70


def test_a_loss_that_was_not_finite_is_a_gap(runs):
    path = runs[1] / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 12, "train_loss": NaN, "eval_loss": 1e999}\n')
    line = plots._lines([read_run(runs[1])], plots.CURVES["loss"])[0]
    assert math.isnan(line.strong[-1])
    assert math.isnan(line.thin[-1])
    ElementTree.fromstring(plots.curves([read_run(runs[1])])["loss"])


def test_more_runs_than_colours_differ_in_their_dashes(tmp_path):
    found = read_runs([write_run(tmp_path / f"ck{i}", epochs=2) for i in range(8)])
    styles = [tuple(line.style.values()) for line in plots._lines(found, plots.CURVES["loss"])]
    assert len(set(styles)) == 8


def test_dense_layers_are_marked_and_pruned_ones_have_bars(runs):
    text = plots.layers(read_run(runs[1]))
    assert text is not None
    bars = re.findall(r'<path d="[^"]*z\s*"[^>]*style="fill: var\(--series-0', text)
    assert len(bars) == 18 + 1  # and one in the legend
    assert all(word in text for word in ("true", "requested", "dense", "layer3.2.conv2"))
    assert plots.layers(read_run(runs[0])) is None


def test_a_hundred_layers_still_have_readable_names(tmp_path):
    run = read_run(write_run(tmp_path / "deep", layer_names=tuple(f"stage{i // 18}.conv{i}" for i in range(108))))
    names = re.findall(r">(?:conv1|stage\S*)</text>", plots.layers(run) or "")
    assert len(names) == 55  # every second of 109


def test_colours_follow_light_and_dark():
    alone = svg.standalone('<svg xmlns="http://www.w3.org/2000/svg"></svg>')
    assert "prefers-color-scheme:dark" in alone
    assert all(colour in alone for colour in svg.SERIES_DARK)
    ElementTree.fromstring(alone)


@pytest.mark.parametrize("colours", [svg.SERIES, svg.SERIES_DARK])
def test_colours_stand_out_from_the_page(colours):
    """WCAG asks for a contrast of 3 between a line and what is behind it."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper = luminance("#ffffff" if colours is svg.SERIES else "#0d1117")
    for colour in colours:
        light, dark = sorted((luminance(colour), paper), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


def test_the_users_matplotlib_style_neither_counts_nor_changes(runs):
    found = read_runs(runs)
    before = plots.curves(found)
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.hashsalt": "mine", "text.usetex": True}):
        assert plots.curves(found) == before
        assert matplotlib.rcParams["lines.linewidth"] == 9
