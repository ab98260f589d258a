"""What stands after the comparison: spreads over seeds, gaps beside the paper's, costs, speed, attacks, filters."""

import json
import math
from xml.etree import ElementTree

import pytest
from run_extras import write_attack, write_costs, write_kernels, write_weights
from run_records import write_run

from campfire.report import write_report
from campfire.report.contents import sections
from campfire.report.formats import NONE, fixed
from campfire.report.records.compare import load
from campfire.report.records.settings import Spread, best_epoch, looks, series_of
from campfire.report.sections import paper
from campfire.report.sections.section import Section, Table

MINUS, ABOUT = "\N{MINUS SIGN}", "\N{PLUS-MINUS SIGN}"


def shown(*paths, draw: bool = True) -> dict[str, Section]:
    return {section.key: section for section in sections(load(paths), draw)}


def cells(table: Table) -> dict[str, tuple[str, ...]]:
    return {row[0]: tuple(row[1:]) for row in table.rows}


@pytest.fixture
def seeds(tmp_path) -> list:
    """Dense and CK with three seeds each, and a sparser CK."""
    dense = [write_run(tmp_path / f"dense{i}", structure=None, seed=i, offset=0.1 * i) for i in range(3)]
    ck = [write_run(tmp_path / f"ck{i}", seed=i, offset=0.5 + 0.2 * i) for i in range(3)]
    return [*dense, *ck, write_run(tmp_path / "ck80", target=0.8, seed=1, offset=1.1)]


def test_a_setting_has_mean_and_deviation_over_its_seeds(seeds):
    series = series_of(load(seeds).runs, load(seeds).rows)
    assert [(one.name, [len(x.runs) for x in one.settings]) for one in series] == [
        ("dense", [3]),
        ("ck · gradual", [3, 1]),
    ]
    table = cells(shown(*seeds)["tradeoff"].tables[0])
    assert table["dense"][3] == f"97.61 {ABOUT} 0.10"
    assert [row[5] for row in shown(*seeds)["tradeoff"].tables[0].rows[1:]] == [
        f"{MINUS}0.63 {ABOUT} 0.10",
        f"{MINUS}1.03",
    ]


def test_gaps_are_to_the_dense_run_of_the_same_seed(seeds):
    dense, ck = (one.settings[0] for one in series_of(load(seeds).runs, load(seeds).rows))
    assert ck.gap is not None
    assert ck.gap.values == tuple(own.top1 - held.top1 for own, held in zip(ck.rows, dense.rows, strict=True))


@pytest.mark.parametrize(("values", "mean", "deviation"), [((1.0,), 1.0, None), ((1.0, 3.0), 2.0, math.sqrt(2))])
def test_a_deviation_is_of_the_sample(values, mean, deviation):
    assert (Spread(values).mean, Spread(values).deviation) == (mean, pytest.approx(deviation))
    assert Spread.of([None]) is None


def test_the_best_epoch_is_among_those_with_the_final_sparsity(tmp_path):
    run = load([write_run(tmp_path / "ck")]).runs[0]
    early = max(run.epochs, key=lambda e: e.eval_top1 if e.epoch < 4 else 0)
    assert early.eval_top1 is not None
    assert best_epoch(run) == 12
    assert best_epoch(load([write_run(tmp_path / "cut", state="running", seen=0)]).runs[0]) is None


def test_series_of_one_structure_are_told_apart_by_what_differs(tmp_path):
    early = write_run(tmp_path / "early", epochs=12)
    late = write_run(tmp_path / "late", epochs=24)
    assert [one.name for one in series_of(load([early, late]).runs, load([early, late]).rows)] == [
        "ck · gradual, epochs 12",
        "ck · gradual, epochs 24",
    ]


def retold(run, **values):
    config = json.loads((run / "config.yaml").read_text())
    for path, value in values.items():
        section, _, key = path.partition("__")
        config[section][key] = value
    (run / "config.yaml").write_text(json.dumps(config))
    return run


def test_settings_of_several_seeds_are_told_apart(tmp_path):
    paths = [
        retold(write_run(tmp_path / f"{start}-{seed}", seed=seed), pruning__era_start=start)
        for start in (2, 4)
        for seed in (0, 1)
    ]
    report = load(paths)
    labels = {look.label for look in looks(report.runs, report.rows).values()}
    assert labels == {f"ck · gradual, era_start {start}, 70 %, 2 seeds" for start in (2, 4)}


def test_no_two_series_have_one_name(tmp_path):
    far = {"pruning__era_start": 4, "pruning__era_length": 5, "optim__lr": 0.2}
    paths = [
        retold(write_run(tmp_path / "a"), optim__weight_decay=0.1),
        retold(write_run(tmp_path / "b"), optim__weight_decay=0.2),
        retold(write_run(tmp_path / "c", epochs=24), **far),
    ]
    report = load(paths)
    names = [one.name for one in series_of(report.runs, report.rows)]
    assert len(set(names)) == 3
    assert all("weight_decay" in name for name in names[:2])


def test_a_run_that_is_there_twice_is_no_second_seed(tmp_path):
    paths = [write_run(tmp_path / "a", seed=1), write_run(tmp_path / "b", seed=1)]
    report = load(paths)
    [series] = series_of(report.runs, report.rows)
    assert series.settings[0].top1.deviation is None
    assert {look.label for look in looks(report.runs, report.rows).values()} == {"ck · gradual, 70 %, 2 runs"}
    third = load([*paths, write_run(tmp_path / "c", seed=2, offset=1)])
    [series] = series_of(third.runs, third.rows)
    assert series.settings[0].top1.mean == pytest.approx(third.rows[0].top1 - 0.5)


def test_an_option_that_is_not_named_is_its_default(tmp_path):
    old, new = write_run(tmp_path / "old", seed=1), write_run(tmp_path / "new", seed=2)
    config = json.loads((new / "config.yaml").read_text())
    config["optim"]["sched"], config["data"]["source"] = "cosine", "/elsewhere/digits"
    (new / "config.yaml").write_text(json.dumps(config))
    [series] = series_of(load([old, new]).runs, load([old, new]).rows)
    assert len(series.settings[0].runs) == 2


def test_gaps_stand_beside_the_papers(seeds):
    section = shown(*seeds)["deltas"]
    [table] = section.tables
    assert table.head == ("setting", "70 %", "80 %")
    assert table.rows[0] == ("ck · gradual", f"{MINUS}0.63 {ABOUT} 0.10", f"{MINUS}1.03")
    assert cells(table)["paper: start 30"] == (f"{MINUS}1.57 / {MINUS}1.42", f"{MINUS}2.63 / {NONE}")
    assert table.quoted == set(range(1, len(table.rows)))
    assert "ImageNet" in section.lede


def test_gaps_before_the_last_drop_stand_behind_those_after_it(seeds):
    for path in seeds:
        stepped(path, drops=(4, 9))
    [table] = shown(*seeds)["deltas"].tables
    assert table.caption.endswith("before the last drop of the learning rate")
    own, twin = (json.loads((path / "metrics.jsonl").read_text().splitlines()[8]) for path in (seeds[-1], seeds[1]))
    assert table.rows[0][2] == f"{MINUS}1.03 / {fixed(own['eval_top1'] - twin['eval_top1'], 2, '+')}"
    assert load(seeds).rows[0].gap_at_drop is None  # of dense itself


def test_a_cosine_has_no_last_drop(seeds):
    for path in seeds:
        stepped(path, drops=(4, 9), sched="cosine")
    assert {row.gap_at_drop for row in load(seeds).rows} == {None}


def stepped(path, drops: tuple[int, ...], sched: str = "step") -> None:
    """Let the run have had a learning rate that falls after these epochs."""
    config = json.loads((path / "config.yaml").read_text())
    config["optim"]["sched"] = sched
    (path / "config.yaml").write_text(json.dumps(config))
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    told = [{**r, "lr": 0.1 ** (1 + sum(r["epoch"] >= drop for drop in drops))} for r in records]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in told))


def test_a_sparsity_that_the_paper_has_not_stands_beside_all_of_its_own(tmp_path):
    runs = write_run(tmp_path / "dense", structure=None), write_run(tmp_path / "window", structure="window", target=0.5)
    [table] = shown(*runs)["deltas"].tables
    assert table.head == ("setting", "20 %", "40 %", "50 %", "60 %", "70 %", "80 %")


def test_a_structure_of_another_paper_has_no_neighbours(tmp_path):
    runs = write_run(tmp_path / "dense", structure=None), write_run(tmp_path / "fine", structure="fine")
    section = shown(*runs)["deltas"]
    assert (section.title, section.lede, len(section.tables[0].rows)) == ("Gap to dense", "", 1)


def test_without_a_dense_run_there_is_no_gap(tmp_path):
    assert "deltas" not in shown(write_run(tmp_path / "ck"))
    assert list(shown(write_run(tmp_path / "dense", structure=None))) == ["epochs"]


def test_the_papers_gaps_are_differences_of_its_own_entries():
    [row] = [row for row in paper.ROWS if (row.structure, row.label) == ("ck", "start 40")]
    assert row.gaps(60) == [-0.96, -0.65]
    assert row.gaps(50) == []
    assert {row.structure for row in paper.ROWS} == {"ck", "combined", "window"}
    assert all(len(values) == 6 for values in paper.FGSM.values())


def test_costs_are_shares_of_the_dense_network(runs):
    assert "costs" not in shown(*runs)
    write_costs(runs[1])
    section = shown(*runs)["costs"]
    assert cells(section.tables[0])["ck70"] == (
        "31.00 (31.0 kB)",
        "32.00",
        "31.00 (12.4 M)",
        "31.00 (930 k)",
        "500 kB",
    )
    assert "MACs: ck70 31.0" in section.figures[0].svg
    assert "averaged over 4 test images" in section.lede


def test_speed_is_measured_or_said_to_be_predicted(runs):
    write_kernels(runs[1])
    [table] = shown(*runs)["speed"].tables
    assert table.caption == "ck70: measured, 2 threads; the whole model 1.40 times dense"
    assert table.rows[0] == ("layer1.0.conv1", "70.00", "2.25", "1.00", "1.75", "blocks, reference")
    write_kernels(runs[1], measured=False)
    [table] = shown(*runs)["speed"].tables
    assert table.rows[0][2:5] == ("1.50", "1.00", "1.50")
    assert "not measured" in table.caption


def test_attacks_have_intervals_and_gaps_and_the_papers_table(runs):
    write_attack(runs[0], 900)
    write_attack(runs[1], 880)
    section = shown(*runs)["robustness"]
    table, theirs = section.tables
    assert table.head == ("run", "no attack", "2/255", "8/255")
    assert cells(table)["dense"][0] == "90.00 [88.0, 91.7]"
    assert cells(table)["ck70"] == (
        f"88.00 [85.8, 89.9]; {MINUS}2.00",
        f"29.30 [26.6, 32.2]; {MINUS}0.70",
        f"9.70 [8.0, 11.7]; {MINUS}0.30",
    )
    assert cells(theirs)["paper: ck, start 40, 60 %"][0] == f"{MINUS}1.20"
    assert "ck70 from 88.00 to 9.70 at 0.03137" in section.figures[0].svg


def test_what_is_not_in_pixels_is_no_part_of_255(runs):
    write_attack(runs[0], space="normalised", last=51)
    assert shown(*runs)["robustness"].tables[0].head == ("run", "no attack", "0.007843", "0.2")


def test_an_attack_by_steps_of_another_length_is_another_curve(runs):
    write_attack(runs[0])
    record = json.loads((runs[0] / "attack.json").read_text())
    usual = {**record["results"][0], "attack": "pgd", "steps": 2, "step_size": 2.5 / 255, "start": "random"}
    tiny = {**usual, "step_size": 1e-6, "top1": 99.0}
    (runs[0] / "attack.json").write_text(json.dumps({**record, "results": [usual, tiny]}))
    tables = shown(*runs)["robustness"].tables
    assert [t.caption.partition(":")[0] for t in tables] == [
        "pgd, linf, pixel, 2 steps, random", "pgd, linf, pixel, 2 steps, each 1e-06, random",
    ]  # fmt: skip
    assert usual["top1"] != 99.0
    assert "99.00" not in cells(tables[0])["dense"][1]


def test_an_attack_is_held_against_the_dense_run_of_its_own_seed(seeds):
    for i, run in enumerate(seeds):
        write_attack(run, 900 - 10 * i)
    table = cells(shown(*seeds)["robustness"].tables[0])
    assert table["ck2"][0].endswith(f"; {MINUS}3.00")
    write_attack(seeds[2], sample="other")
    assert ";" not in cells(shown(*seeds)["robustness"].tables[0])["ck2"][0]


def test_other_images_are_not_compared_in_silence(runs):
    write_attack(runs[0], sample="one")
    write_attack(runs[1], sample="other", attack="pgd")
    section = shown(*runs)["robustness"]
    assert "Not the same images as those of dense, so not compared with it: ck70." in section.lede
    assert [table.caption[:4] for table in section.tables] == ["fgsm", "pgd,", "The "]


def test_attacks_on_another_data_set_are_not_compared(runs):
    for run, name in zip(runs, ("own", "other"), strict=True):
        write_attack(run)
        record = json.loads((run / "attack.json").read_text())
        (run / "attack.json").write_text(json.dumps(record | {"fingerprint": name}))
    section = shown(*runs)["robustness"]
    assert "not compared with it: ck70." in section.lede
    assert ";" not in cells(section.tables[0])["ck70"][0]


@pytest.mark.parametrize("name", ["costs.json", "kernels.json", "attack.json"])
def test_a_damaged_record_leaves_the_run_out(runs, name):
    (runs[1] / name).write_text('{"format": "of tomorrow", "layers": 3}')
    [one] = load(runs).left_out
    assert (one.name, name in one.reason) == ("ck70", True)


def test_filters_are_drawn_before_and_after(runs):
    write_weights(runs[0])
    write_weights(runs[1], zeros=0.7)
    figures = shown(*runs)["filters"].figures
    assert [(figure.group, figure.caption.partition(":")[0]) for figure in figures] == [
        ("layer2.1.conv2", "dense"),
        ("layer2.1.conv2", "ck70"),
        ("layer3.2.conv2", "dense"),
        ("layer3.2.conv2", "ck70"),
    ]
    dense, sparse = (ElementTree.fromstring(figure.svg) for figure in figures[:2])
    assert dense.attrib["aria-label"].endswith("100 of 100 kernels drawn and 100.0 % of their weights live.")

    def squares(svg) -> int:
        return sum(node.attrib["d"].count("M") for node in svg.iter("{http://www.w3.org/2000/svg}path"))

    assert squares(dense) == 100 + 900
    assert (squares(sparse) - 100) % 9 == 0
    assert squares(sparse) < 100 + 450


def test_one_run_of_each_setting_is_drawn(seeds):
    for run in seeds:
        write_kernels(run)
        write_weights(run, 0.5)
    found = shown(*seeds)
    assert [figure.caption.partition(":")[0] for figure in found["filters"].figures[:3]] == ["dense0", "ck0", "ck80"]
    assert [figure.caption.partition(":")[0] for figure in found["speed"].figures[1:]] == ["ck0", "ck80"]


def test_weights_that_cannot_be_read_are_not_drawn(runs):
    assert "filters" not in shown(*runs)  # their model.safetensors is none


def test_words_and_tables_need_no_drawing(seeds):
    write_costs(seeds[-1])
    drawn, plain = shown(*seeds), shown(*seeds, draw=False)
    assert not any(section.figures for section in plain.values())
    assert [t for s in plain.values() for t in s.tables] == [
        t for s in drawn.values() if s.key in plain for t in s.tables
    ]


def test_every_figure_is_wellformed_and_has_a_file(seeds, tmp_path):
    for run in seeds:
        write_costs(run)
        write_kernels(run)
        write_attack(run)
        write_weights(run, 0.5)
    figures = [figure for section in shown(*seeds).values() for figure in section.figures]
    assert len({figure.name for figure in figures}) == len(figures)
    for figure in figures:
        assert ElementTree.fromstring(figure.svg).attrib["aria-label"]
        assert "nan" not in figure.svg
    write_report(seeds, tmp_path / "out")
    assert {p.stem for p in (tmp_path / "out" / "figures").iterdir()} == {figure.name for figure in figures}


def test_a_run_of_one_epoch_can_be_drawn(tmp_path):
    run = write_run(tmp_path / "short", epochs=1)
    metrics = json.loads((run / "metrics.jsonl").read_text())
    (run / "metrics.jsonl").write_text(json.dumps(metrics | {"train_loss": 0.0, "eval_loss": 0.0}) + "\n")
    assert "epochs" in shown(run)
