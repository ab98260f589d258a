"""The table fits a terminal and shows names as they are."""

from rich.console import Console
from run_records import write_run

from campfire.report.records.compare import load
from campfire.report.renderers.terminal import render


def printed(*paths, width=80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"), force_terminal=False)  # noqa: SIM115
    console.print(render(load(paths)))
    return console.export_text()


def test_eighty_columns_are_enough(runs):
    text = printed(*runs)
    line = next(line for line in text.splitlines() if line.startswith("ck70"))
    assert line.split()[1:] == ["97.26", "\N{MINUS SIGN}0.45", "70.00", "70.00", "30.55", "31.71", "12", "61.5"]


def test_an_unfinished_run_shows_its_state(tmp_path):
    text = printed(write_run(tmp_path / "stopped", state="preempted", seen=3))
    assert "stopped preempted" in text
    assert "3/12" in text
    assert "! stopped is not finished: preempted (SIGTERM)" in text


def test_what_is_left_out_is_said(tmp_path, runs):
    (runs[1] / "summary.json").write_text("{")
    assert "! ck70 is not shown:" in printed(*runs)


def test_markup_and_escapes_are_text(tmp_path):
    text = printed(write_run(tmp_path / "run", model="[red]x[/red]\x1b[2J"), width=120)
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


def test_models_are_named_beside_each_run_only_where_they_differ(tmp_path, runs):
    assert printed(*runs).count("resnet20") == 1
    text = printed(*runs, write_run(tmp_path / "other", model="resnet8"), width=120)
    assert "resnet8 · digits · ck · gradual" in text
