"""One file that fetches nothing, runs nothing, says the same in every byte, and shows names as text."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_extras import write_attack, write_costs
from run_records import write_run

from campfire.report import render, write_report
from campfire.report.contents import sections
from campfire.report.formats import plain
from campfire.report.records.compare import load
from campfire.report.records.record import Layer, Run, Status, Summary
from campfire.report.records.settings import Look
from campfire.report.renderers import html, markdown
from campfire.report.sections.depth import by_depth

SVG_TAGS = {
    f"{{http://www.w3.org/2000/svg}}{tag}" for tag in ["svg", "path", "text", "rect", "circle", "polyline", "title"]
}
EVIL = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title><svg onload=alert(1)>", "{{ 7*7 }}"]


class Page(HTMLParser):
    """Tags with attributes, and the text of the page; fails on tags that do not pair up."""

    VOID = ("meta", "br")

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(*paths) -> str:
    return render(load(paths), "html")


def svgs(text: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", text, re.DOTALL)


def outside_svg(text: str) -> Page:
    return Page(re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))


def test_it_stands_alone(runs):
    page = Page(page_of(*runs))
    assert {"script", "link", "img", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        links = [value for name, value in attrs.items() if name in ("src", "href", "xlink:href", "action")]
        assert all(value.startswith("#") for value in links)
    policy = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert not re.search(r"url\((?!#)|@import", page_of(*runs))


def test_the_numbers_of_the_comparison_are_there(runs):
    text = " ".join("".join(Page(page_of(*runs)).text).split())
    for number in (
        "97.26",
        "\N{MINUS SIGN}0.45",
        "70.00",
        "30.55",
        "31.71",
        "13.0 M",
        "1,229 of 4,096",
        "Xeon",
        "2.13.0",
    ):
        assert number in text


def test_the_same_runs_give_the_same_bytes(runs, tmp_path):
    first = write_report(runs, tmp_path / "one")
    second = write_report(runs, tmp_path / "two")
    files = sorted(p.relative_to(first.parent) for p in first.parent.rglob("*") if p.is_file())
    assert [str(p) for p in files if p.suffix != ".svg"] == ["report.html", "report.md"]
    assert files == sorted(p.relative_to(second.parent) for p in second.parent.rglob("*") if p.is_file())
    for file in files:
        assert (first.parent / file).read_bytes() == (second.parent / file).read_bytes()


@pytest.mark.parametrize("name", EVIL)
def test_names_are_text_everywhere(tmp_path, name):
    folder = tmp_path / name.replace("/", "\N{DIVISION SLASH}")
    evil = write_run(folder, model=name, data=name, structure=name, layer_names=(name, "_x", "$a$"))
    good = write_run(tmp_path / "good", layer_names=("a", "_x", "$a$"))
    text, expected = page_of(evil), page_of(good)
    assert [tag for tag, _ in outside_svg(text).tags] == [tag for tag, _ in outside_svg(expected).tags]
    assert any(name in part for part in outside_svg(text).text)
    assert len(svgs(text)) == 5
    for drawn in svgs(text):
        assert {node.tag for node in ElementTree.fromstring(drawn).iter()} <= SVG_TAGS
    assert name[:10] in "".join(ElementTree.fromstring(svgs(text)[-1]).itertext())


@settings(max_examples=50, deadline=None)
@given(name=st.text(max_size=30))
def test_any_text_is_text(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("any") / "run"
    report = load([write_run(folder, model=name, structure=name or "ck", layer_names=(name,), epochs=1)])
    page = Page(html.render(report, sections(report, draw=False)))
    assert "script" not in [tag for tag, _ in page.tags]
    assert plain(name) in "".join(page.text)


@settings(max_examples=10, deadline=None)
@given(name=st.text(max_size=30))
def test_any_layer_name_can_be_drawn(name):
    layer = Layer(name, (8, 8, 3, 3), "ck", requested=0.5, true=0.5)
    run = Run(Path(), "run", Status(), Summary(), layers=(layer, Layer(name, (8, 3, 3, 3))))
    drawn = by_depth([run], {"run": Look("series-0", "", name)})
    assert drawn is not None
    ElementTree.fromstring(drawn)


def test_runs_that_stopped_early_are_shown(tmp_path, runs):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("model: {name: resnet8}")
    (broken / "status.json").write_text('{"state": "failed", "reason": "out of memory"}')
    text = "".join(Page(page_of(*runs, broken, write_run(tmp_path / "nan", state="diverged", seen=2))).text)
    assert "out of memory" in text
    assert "diverged" in text
    assert "no record of layers" in text


def test_every_plot_is_wellformed_and_labelled(runs):
    text = page_of(*runs)
    drawn = svgs(text)
    assert len(drawn) == 2 + 3 + 1  # against sparsity, the curves, the layers
    for svg in drawn:
        assert len(ElementTree.fromstring(svg).attrib["aria-label"]) > 40
    assert text.count('role="img" aria-label=') == 6


def test_it_is_outlined_for_those_who_cannot_see_it(runs):
    for run in runs:
        write_costs(run)
        write_attack(run)
    tags = Page(page_of(*runs)).tags
    assert dict(tags)["html"] == {"lang": "en"}
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(after <= before + 1 for before, after in pairwise(levels))
    scopes = {attrs.get("scope") for tag, attrs in tags if tag == "th"}
    assert scopes == {"col", "colgroup", "row"}
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    assert {attrs["href"][1:] for tag, attrs in tags if tag == "a"} <= set(ids)
    named = {attrs[name] for _, attrs in tags for name in ("aria-labelledby",) if name in attrs}
    assert named <= set(ids)


def test_what_is_left_out_stands_at_the_top(runs, tmp_path):
    (runs[1] / "summary.json").write_text("{")
    text = page_of(*runs)
    assert text.index("Not shown") < text.index("Comparison</h2>")
    assert "summary.json is not JSON" in "".join(Page(text).text)


@pytest.mark.parametrize("query", ["prefers-color-scheme: dark", "@media print", "max-width: 40rem"])
def test_its_style_knows_the_dark_the_printer_and_the_phone(runs, query):
    assert query in page_of(*runs)


def test_without_anything_measured_there_is_still_a_report(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "status.json").write_text("{}")
    text = page_of(tmp_path)
    assert svgs(text) == []
    assert "unknown" in "".join(Page(text).text)
    assert "Environment" not in markdown.render(load([tmp_path]))
