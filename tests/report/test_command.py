"""``campfire report``: what it prints and writes, what it refuses, and what it does without its extra."""

import json
import subprocess
import sys

import pytest
from run_records import write_run

from campfire.cli.report import main
from campfire.errors import CampfireError, UsageError
from campfire.report import write_report
from campfire.report.records.compare import load


def test_it_writes_beside_each_other(runs, tmp_path, capsys):
    assert main([*map(str, runs), "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    linked = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert linked == [f"figures/{name}.svg" for name in ("tradeoff", "gaps", "accuracy", "sparsity", "loss", "layers")]
    assert all((tmp_path / "out" / path).read_text(encoding="utf-8").startswith("<svg") for path in linked)
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_flag_that_is_none_is_named(runs):
    with pytest.raises(UsageError, match=r"no option is called '--htlm=out\.html'; did you mean '--html'"):
        main([str(runs[0]), "--htlm=out.html"])


def test_json_is_one_object_in_the_last_line_alone_on_stdout(runs, tmp_path, capsys):
    main([*map(str, runs), "--output", str(tmp_path / "out"), "--json", "--no-html"])
    captured = capsys.readouterr()
    [line] = captured.out.splitlines()
    found = json.loads(line)
    assert found["output"] == str(tmp_path / "out" / "report.md")
    assert [run["run"] for run in found["runs"]] == ["dense", "ck70"]
    assert found["runs"][1]["gap"] == pytest.approx(-0.45, abs=0.005)
    assert "ck70" in captured.err


def test_one_run_keeps_its_report_and_several_go_to_report(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([str(runs[0]), "--no-html"])
    assert (runs[0] / "report.md").exists()
    main([*map(str, runs), "--no-html"])
    assert (tmp_path / "report" / "report.md").exists()


def test_a_second_report_replaces_the_first(runs, tmp_path):
    write_report(runs, tmp_path / "out")
    path = write_report(runs[:1], tmp_path / "out")
    assert "ck70" not in path.read_text(encoding="utf-8")


def test_another_run_is_not_written_into(runs, tmp_path):
    with pytest.raises(UsageError, match="holds a run of its own"):
        write_report(runs, runs[0])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        write_report(runs, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    assert not (runs[0] / "report.md").exists()


def test_a_missing_extra_is_named_with_its_cure_and_markdown_is_there(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(CampfireError, match="jinja2") as caught:
        write_report(runs, tmp_path / "out")
    assert "pip install 'campfire-sparse[report]'" in str(caught.value)
    assert "figures/loss.svg" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "report.html").exists()
    assert write_report(runs, tmp_path / "out", html=False).name == "report.md"


def test_unwritable_output_is_one_clear_message(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        write_report(runs, tmp_path / "file" / "below")


def test_a_format_is_one_file_or_stdout(runs, tmp_path, capsys):
    paths = {name: tmp_path / "out" / f"r.{name}" for name in ("html", "markdown", "latex")}
    flags = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    assert main([*map(str, runs), *flags, "--csv", "-"]) == 0
    captured = capsys.readouterr()
    assert [line.split(",")[0] for line in captured.out.splitlines()] == ["run", "dense", "ck70"]
    assert captured.err.splitlines()[-1] == f"report: {paths['latex']}"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["r.html", "r.latex", "r.markdown"]
    assert paths["html"].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "figures/" not in paths["markdown"].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--csv", "-", "--latex", "-"], "only one"),
        (["--csv", "-", "--json"], "only one"),
        (["--html", "x.html", "--output", "out"], "names its own file"),
        (["--html", "x.html", "--no-html"], "names its own file"),
        (["--markdown", "."], "is a folder"),
    ],
)
def test_flags_that_contradict_each_other(runs, flags, said):
    with pytest.raises(UsageError, match=said):
        main([*map(str, runs), *flags])


def test_runs_on_different_data_are_refused_or_separated(runs, tmp_path, capsys):
    other = write_run(tmp_path / "other", data="c/../ifar")
    argv = [*map(str, runs), str(other)]
    with pytest.raises(UsageError, match=r"of 2: digits \(dense, ck70\); c/../ifar \(other\); .*--separate"):
        main([*argv, "--html", str(tmp_path / "out.html")])
    assert not list(tmp_path.glob("*.html"))
    main([*argv, "--separate", "--html", str(tmp_path / "out.html"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["output"] == [str(tmp_path / name) for name in ("out-digits.html", "out-c-..-ifar.html")]
    assert [[run["run"] for run in one["runs"]] for one in found["reports"]] == [["dense", "ck70"], ["other"]]
    main([*argv, "--separate", "--no-html", "--output", str(tmp_path / "out")])
    assert (tmp_path / "out" / "digits" / "report.md").exists()


def test_an_unfinished_run_is_on_the_data_it_was_told(runs, tmp_path):
    stopped = write_run(tmp_path / "stopped", state="running", seen=3, data="/somewhere/digits")
    assert len(load([*runs, stopped]).rows) == 3


def test_help_and_markdown_import_neither_torch_nor_jinja(tmp_path):
    run = write_run(tmp_path / "run", epochs=2)
    code = (
        "import sys; from campfire.cli.report import main\n"
        f"main([{str(run)!r}, '--no-html'])\n"
        "heavy = {'torch', 'jinja2'} & sys.modules.keys(); assert not heavy, heavy\n"
        "main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--output DIR" in done.stdout
