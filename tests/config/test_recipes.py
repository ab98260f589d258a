"""Recipes as files: headers that can be read, settings and milestones of the papers."""

import json
import pathlib
import re
import shlex

import pytest

from campfire.cli import main
from campfire.cli.train import parser
from campfire.config import Config, Layer, from_file, load
from campfire.config.recipes import FOLDER, Recipe, find, recipes
from campfire.errors import UsageError
from campfire.schedules import Era

ROOT = pathlib.Path(__file__).parent.parent.parent
ALL = {recipe.name: recipe for recipe in recipes()}
# epochs, batch, learning rate, epochs in which it falls to a tenth: Campfire 2.4 and T-C3, ClickTrain 3.4
RECIPES = {
    r"campfire-tiny-.*": (40, 64, 1e-3, (30,)),
    r"campfire-v1-.*": (90, 128, 0.1, (30, 60)),
    r"campfire-v15-inter-epoch-.*": (90, 64, 0.05, (30, 60)),
    r"campfire-v15-.*-drop80": (100, 64, 0.05, (30, 60, 80)),
    r"campfire-v15-.*": (100, 64, 0.05, (30, 60, 90)),
    r"campfire-b256-.*": (100, 256, 0.1, (30, 60, 90)),
    r"clicktrain-resnet.*-cifar10-.*": (190, 128, 0.1, (55, 130)),
    r"clicktrain-vgg.*": (190, 128, 0.1, (55, 131)),
    r"clicktrain-.*-imagenet-.*": (95, 256, 0.1, (31, 61, 75)),
}
ERAS = {  # first epoch and length of the era; of ClickTrain e1 and e2 - e1
    r"campfire-tiny-.*": (0, 10),
    r"campfire-.*-start0(-drop80)?": (0, 30),
    r"campfire-.*-era40-70": (40, 30),
    r"campfire-.*-start20(-drop80)?": (20, 20),
    r"campfire-.*-start30(-drop80)?": (30, 20),
    r"campfire-.*-start40(-drop80)?": (40, 20),
    r"clicktrain-resnet.*-cifar10-.*": (61, 80),
    r"clicktrain-.*-imagenet-.*": (35, 43),
    r"clicktrain-vgg11-.*": (65, 78),
    r"clicktrain-vgg13-.*": (60, 88),
    r"clicktrain-vgg16-cifar100-.*": (54, 95),
    r"clicktrain-vgg16-cifar10-.*": (150, 13),
}


def config_of(recipe: Recipe, flags: str = "") -> Config:
    given = {path: value for path, value in vars(parser().parse(shlex.split(flags))).items() if "." in path}
    return load(from_file(FOLDER / f"{recipe.name}.yaml"), Layer("flag", given))[0]


def of(table: dict[str, tuple], name: str) -> tuple | None:
    return next((wanted for pattern, wanted in table.items() if re.fullmatch(pattern, name)), None)


@pytest.mark.parametrize("name", ALL)
def test_every_row_is_a_configuration(name: str) -> None:
    for row in ALL[name].rows:
        config = config_of(ALL[name], row.flags)
        assert config.optim.warmup_epochs == 0 or not name.startswith(("campfire", "clicktrain", "mao"))


@pytest.mark.parametrize("name", [n for n in ALL if of(RECIPES, n)])
def test_training_is_the_papers(name: str) -> None:
    config = config_of(ALL[name])
    optim = config.optim
    found = (optim.epochs, config.data.batch_size, optim.lr, optim.decay_milestones)
    assert (*found, optim.sched, optim.decay_rate) == (*(of(RECIPES, name) or ()), "step", 0.1)
    assert optim.weight_decay == (5e-4 if name.startswith("clicktrain") else 1e-4)


@pytest.mark.parametrize("name", [n for n in ALL if of(ERAS, n) and "-dense" not in n])
def test_eras_are_the_papers(name: str) -> None:
    pruning = config_of(ALL[name]).pruning
    assert (pruning.era_start, pruning.era_length) == of(ERAS, name)
    assert pruning.scope == "all" or name.startswith("clicktrain")


def test_every_campfire_and_clicktrain_recipe_is_checked() -> None:
    published = [name for name in ALL if name.startswith(("campfire", "clicktrain"))]
    assert [name for name in published if not of(RECIPES, name)] == []
    assert [name for name in published if not of(ERAS, name) and "-dense" not in name] == []


@pytest.mark.parametrize(
    ("name", "epoch_sparsity"),  # methods: equation 1, as printed there
    [
        ("campfire-v15-ck-start30", {29: 0, 30: 0, 32: 0.1897, 35: 0.404687, 41: 0.636212, 50: 0.7, 99: 0.7}),
        ("campfire-v15-ck-era40-70", {40: 0, 45: 0.252778, 50: 0.422222, 60: 0.577778, 65: 0.597222, 70: 0.6}),
        ("campfire-tiny-ck", {0: 0, 1: 0.2168, 4: 0.6272, 9: 0.7992, 10: 0.8, 39: 0.8}),
    ],
)
def test_sparsities_are_equation_1(name: str, epoch_sparsity: dict[int, float]) -> None:
    target = max(epoch_sparsity.values())
    pruning = config_of(ALL[name], f"--sparsity {target}").pruning
    assert pruning.era_by == "epoch"
    era = Era(
        pruning.era_start or 0, pruning.era_length or 0, pruning.sparsity, pruning.era_initial or 0, pruning.era_power
    )
    assert [era(epoch) for epoch in epoch_sparsity] == pytest.approx(list(epoch_sparsity.values()), abs=6e-7)


def test_the_command_in_the_header_is_the_files_own() -> None:
    for name in ALL:
        (command,) = re.findall(r"^# (campfire .*)$", (FOLDER / f"{name}.yaml").read_text(), re.MULTILINE)
        assert command.startswith("campfire train ")
        assert f" -c recipes/{name}.yaml" in command


def test_the_folder_of_the_repository_is_that_of_the_package() -> None:
    assert (ROOT / "recipes").resolve() == FOLDER.resolve()


def test_our_numbers_are_those_of_the_documentation() -> None:
    text = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    ours = [row.ours for recipe in ALL.values() for row in recipe.rows if row.ours]
    assert ours
    assert [number for number in ours if f"{number} %" not in text] == []


def test_recipes_are_found_from_anywhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "recipes/campfire-tiny-ck.yaml"
    assert find(name) == FOLDER / "campfire-tiny-ck.yaml"
    (tmp_path / "recipes").mkdir()
    (tmp_path / name).write_text("optim: {epochs: 3}")
    assert find(name) == pathlib.Path(name)
    assert find("elsewhere/campfire-tiny-ck.yaml") == pathlib.Path("elsewhere/campfire-tiny-ck.yaml")


def test_other_files_are_no_recipes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("campfire.config.recipes.FOLDER", tmp_path)
    (tmp_path / "grid.yaml").write_text("# a grid\nseeds: [1]\n")
    (tmp_path / "a.yaml").write_text(
        "# A\n# | flags | paper, top-1 | ours |\n# |---|---|---|\n# | -b 2 | 1.0 | 0.9 |\n"
    )
    (recipe,) = recipes()
    assert (recipe.title, recipe.rows[0].paper, recipe.rows[0].ours) == ("A", {"top-1": "1.0"}, "0.9")
    (tmp_path / "b.yaml").write_text("# B\n# | flags | ours |\n# |---|---|\n# | 1 |\n")
    with pytest.raises(UsageError, match="row of 2 cells"):
        recipes()


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "campfire", "v15", "ck-start40", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["recipes"]
    assert [r["name"] for r in found] == ["campfire-v15-ck-start40", "campfire-v15-ck-start40-drop80"]
    assert found[0]["rows"][1] == {
        "flags": "--sparsity 0.6",
        "paper": {"epoch 100": "75.33", "epoch 90": "74.60"},
        "ours": None,
    }
    assert main(["recipes", "cifar10-resnet20"]) == 0
    assert "paper: no number; ours: 88.44" in capsys.readouterr().out
    assert main(["recipes", "nothing-like-it"]) == 2
