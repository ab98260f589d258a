"""``campfire report``: what it prints and writes, what it refuses, and what it does without its extra."""

import json
import subprocess
import sys

import pytest
from run_records import write_run

from campfire.errors import CampfireError, UsageError
from campfire.report import main, write_report


def test_it_writes_beside_each_other(runs, tmp_path, capsys):
    assert main([*map(str, runs), "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    linked = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert linked == [f"figures/{name}.svg" for name in ("sparsity", "accuracy", "loss", "layers-1")]
    assert all((tmp_path / "out" / path).read_text(encoding="utf-8").startswith("<svg") for path in linked)
    assert not list((tmp_path / "out").rglob("*.part"))


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


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_missing_extra_is_named_with_its_cure_and_markdown_is_there(runs, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(CampfireError, match=missing) as caught:
        write_report(runs, tmp_path / "out")
    assert "pip install 'campfire-sparse[report]'" in str(caught.value)
    assert "figures/" not in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "report.html").exists()
    assert write_report(runs, tmp_path / "out", html=False).name == "report.md"


def test_unwritable_output_is_one_clear_message(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        write_report(runs, tmp_path / "file" / "below")


def test_help_and_markdown_import_neither_torch_nor_matplotlib(tmp_path):
    run = write_run(tmp_path / "run", epochs=2)
    code = (
        "import sys; from campfire.report import main\n"
        f"main([{str(run)!r}, '--no-html'])\n"
        "heavy = {'torch', 'matplotlib', 'jinja2'} & sys.modules.keys(); assert not heavy, heavy\n"
        "main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--output DIR" in done.stdout
