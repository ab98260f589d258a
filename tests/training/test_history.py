"""The record of a run's epochs, also where a newer version goes on with it."""

from pathlib import Path

from campfire.training.run_directory import RunDirectory


def test_later_records_may_say_more(tmp_path: Path) -> None:
    RunDirectory(tmp_path).write_history([{"epoch": 0, "loss": 2.5}, {"epoch": 1, "loss": 2.0, "wait": 0.1}])
    assert (tmp_path / "summary.csv").read_text() == "epoch,loss,wait\n0,2.5,\n1,2.0,0.1\n"
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
