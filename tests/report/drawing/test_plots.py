"""What is drawn: the points, the dense layers, the colours; every drawing is well-formed and says what it shows."""

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_records import write_run

from campfire.report.drawing import svg
from campfire.report.drawing.chart import Scale, log_ticks, round_ticks
from campfire.report.records.compare import load
from campfire.report.records.settings import looks
from campfire.report.sections.depth import by_depth, extremes, shown
from campfire.report.sections.plots import CURVES, curves, lines_of

SPACE = "{http://www.w3.org/2000/svg}"


def drawn(*paths) -> dict[str, str]:
    report = load(paths)
    return curves(report.runs, looks(report.runs, report.rows))


def lines(text: str, ink: str) -> list[int]:
    """The number of points of each line of a plot in that colour, those of the legend left out."""
    found = [node for node in ElementTree.fromstring(text).iter(f"{SPACE}polyline") if ink in node.attrib["stroke"]]
    return [n for node in found if (n := len(node.attrib["points"].split())) > 2]


def of(curve: str, *paths) -> list:
    report = load(paths)
    return lines_of(report.runs, CURVES[curve], looks(report.runs, report.rows))


def test_a_curve_is_thinned(tmp_path):
    [line] = of("accuracy", write_run(tmp_path / "long", epochs=3000))
    assert (len(line.at), line.at[0], line.at[-1]) == (400, 1, 3000)


def test_every_run_has_its_line_in_its_colour(runs):
    found = drawn(*runs)
    assert list(found) == ["accuracy", "sparsity", "loss"]
    for text in found.values():
        assert len(lines(text, "var(--ink,")) == 2  # dense, strong and thin
        assert len(lines(text, "var(--series-0,")) == 2


def test_a_drawing_says_in_words_what_it_shows(runs):
    label = ElementTree.fromstring(drawn(*runs)["accuracy"]).attrib["aria-label"]
    assert label == "Accuracy over the epochs, top-1, %: dense ends at 97.71; ck70 ends at 97.26."


def test_the_requested_sparsity_is_drawn_thin_beneath_the_true_one(runs):
    report = load(runs[1:])
    [line] = of("sparsity", runs[1])
    assert line.strong == [100 * e.sparsity_true for e in report.runs[0].epochs]
    assert line.thin == [100 * e.sparsity_requested for e in report.runs[0].epochs]
    assert line.last == 70


def test_a_loss_that_was_not_finite_is_a_gap(runs):
    path = runs[1] / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 12, "train_loss": NaN, "eval_loss": 1e999}\n')
    [line] = of("loss", runs[1])
    assert math.isnan(line.strong[-1])
    assert math.isnan(line.thin[-1])
    assert "nan" not in drawn(runs[1])["loss"].lower()


def test_more_runs_than_colours_differ_in_their_dashes(tmp_path):
    report = load([write_run(tmp_path / f"ck{i}", epochs=2, target=i / 20) for i in range(1, 9)])
    found = looks(report.runs, report.rows).values()
    assert len({(look.ink, look.dash) for look in found}) == 8


def test_seeds_of_one_setting_look_alike(tmp_path):
    report = load([write_run(tmp_path / f"s{i}", epochs=2, seed=i) for i in range(3)])
    assert {look.label for look in looks(report.runs, report.rows).values()} == {"ck · gradual, 70 %, 3 seeds"}


def test_a_row_for_each_layer_and_a_ring_where_it_is_dense(runs):
    report = load(runs)
    look = looks(report.runs, report.rows)
    text = by_depth(report.runs, look)
    assert text is not None
    dots = [node.attrib["fill"] for node in ElementTree.fromstring(text).iter(f"{SPACE}circle")]
    assert (len(dots), sum("paper" in fill for fill in dots)) == (19, 1)
    assert by_depth(report.runs[:1], look) is None
    [(name, least, most)] = extremes(report.runs, look)
    assert (name, least[:5], most[:5]) == ("ck70", "69.92", "70.02")


def test_a_hundred_layers_still_have_readable_names(tmp_path):
    report = load([write_run(tmp_path / "deep", layer_names=tuple(f"stage{i // 18}.conv{i}" for i in range(108)))])
    text = by_depth(report.runs, looks(report.runs, report.rows)) or ""
    assert len(re.findall(r">(?:conv1|stage\S*)</text>", text)) == 55  # every second of 109


def test_layers_without_a_record_are_no_points(runs):
    report = load(runs)
    bare = [replace(run, layers=()) for run in report.runs]
    assert by_depth(bare, looks(bare, report.rows)) is None


def test_colours_follow_light_and_dark():
    alone = svg.standalone(svg.Drawing(1, 1, "nothing").done())
    assert "prefers-color-scheme:dark" in alone
    assert all(colour in alone for colour in svg.SERIES_DARK)
    ElementTree.fromstring(alone)


@pytest.mark.parametrize("colours", [svg.LIGHT, svg.DARK])
def test_colours_stand_out_from_the_page(colours):
    """WCAG asks for a contrast of 3 between a line and what is behind it, and of 4.5 for text."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper = luminance(colours["paper"])
    for name, colour in colours.items():
        light, dark = sorted((luminance(colour), paper), reverse=True)
        wanted = {"paper": 1, "line": 1, "ink": 4.5, "muted": 4.5}.get(name, 3)
        assert (light + 0.05) / (dark + 0.05) >= wanted, name


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low, width):
    ticks = round_ticks(low, low + width)
    assert len(ticks) <= 6
    slack = 1e-6 * width + 1e-9 * abs(low)
    assert all(low - slack <= tick <= low + width + slack for tick in ticks)


@given(low=st.floats(1e-6, 10), ratio=st.floats(1.1, 1e8))
def test_logarithmic_ticks_are_inside(low, ratio):
    assert all(low <= tick <= low * ratio for tick in log_ticks(low, low * ratio))


@given(value=st.floats(-100, 200), log=st.booleans())
def test_a_scale_stays_within_its_pixels(value, log):
    assert 10 <= Scale(0.5, 100, 10, 90, log).at(value) <= 90


@given(text=st.text(max_size=40))
def test_any_text_can_be_drawn(text):
    drawing = svg.Drawing(10, 10, text).text((0, 0), text).dot((1, 1), "ink", tip=text)
    ElementTree.fromstring(drawing.done())


def test_many_settings_share_the_colour_of_their_series_and_the_sparsest_are_drawn_by_layer(tmp_path):
    levels = (0.3, 0.4, 0.5, 0.6, 0.7)
    report = load(
        [write_run(tmp_path / f"{s}{x}", structure=s, target=x, epochs=2) for s in ("ck", "window") for x in levels]
    )
    look = looks(report.runs, report.rows)
    assert {one.label for one in look.values()} == {"ck · gradual", "window · gradual"}
    assert [row[0] for row in extremes(report.runs, look)] == ["ck · gradual, 70 %", "window · gradual, 70 %"]
    assert shown(report.runs, look) == " Drawn are 2 of 10 settings, the sparsest of their kind."
    assert shown(report.runs[:2], look) == ""
