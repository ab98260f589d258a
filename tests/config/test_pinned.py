"""What a run's file keeps as it was, although other options are given beside it."""

from campfire.config import Layer, from_flags, from_tree, load, pinned


def test_what_followed_from_an_option_that_changes() -> None:
    file = from_tree(load(from_flags({"epochs": 9}))[0].model_dump(mode="json"), "run.yaml")
    assert pinned(file, load(file)[0]) == []
    assert pinned(file, load(file, from_flags({"seed": 7}))[0]) == []
    said = pinned(file, load(file, from_flags({"epochs": 30, "opt": "adamw"}))[0])
    assert "pruning.era_start stays 3 (default now: 10)" in [line.replace(".0", "") for line in said]
    assert "optim.lr stays 0.1 (default now: 0.001)" in said
    assert pinned(
        file, load(file, from_flags({"epochs": 30, "era_start": 5, "era_length": 4, "warmup_epochs": 0}))[0]
    ) == ["optim.decay_epochs stays 3.0 (default now: 10.0)"]


def test_what_was_chosen_is_no_default() -> None:
    file = Layer("recipe.yaml", {"optim.lr": 0.3, "optim.epochs": 30})
    assert pinned(file, load(file, from_flags({"opt": "adam"}))[0]) == []
