"""Layers of configuration: who wins, where values come from, and what is said of mistakes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from campfire.config import (
    FLAGS,
    OPTIONS,
    Config,
    differences,
    from_file,
    from_flags,
    from_sets,
    from_tree,
    load,
    merge,
    to_yaml,
)
from campfire.errors import UsageError


def test_later_layers_win_and_origins_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("optim: {lr: 0.3, momentum: 0.5, epochs: 12}\npruning: {rules: {fc: fine-fc}}\n")
    sets = from_sets(["optim.momentum=0.6", "optim.epochs=10", "pruning.rules.layer1.*=window"])
    config, origins = load(from_file(file), sets, from_flags({"epochs": "8"}))
    assert (config.optim.lr, config.optim.momentum, config.optim.epochs) == (0.3, 0.6, 8)
    assert config.pruning.rules == {"fc": "fine-fc", "layer1.*": "window"}
    assert [origins.get(f"optim.{k}") for k in ("lr", "momentum", "epochs", "decay_rate", "weight_decay")] == [
        *(str(file), "--set", "flag", None, "derived")
    ]


def test_yaml_round_trip() -> None:
    config, origins = load(
        from_flags(
            {"rules": {"re:layer[12]": "window", "fc": None}, "steps": ["2:0.3", "4:0.5"], "lr": 1e-5, "model": "a:b"}
        )
    )
    text = to_yaml(config, origins)
    assert merge([from_tree(yaml.safe_load(text), "file")])[0] == config
    assert "lr: 1.0e-05  # flag" in text
    assert "epochs: 20  # default" in text
    assert "era_start: 6.0  # derived" in text


def test_a_sparsity_for_each_layer() -> None:
    config, _ = merge([from_flags({"allocation": "erk"}), from_sets(["pruning.allocation.layer1.0.conv1=0.5"])])
    assert config.pruning.allocation == {"layer1.0.conv1": 0.5}


def test_numbers_that_yaml_reads_as_text() -> None:
    assert merge([from_sets(["optim.lr=1e-3"])])[0].optim.lr == 0.001


def test_flags_are_unique() -> None:
    assert len(FLAGS) == len(OPTIONS)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sparsity": 1.0}, "--sparsity: input should be less than 1; got 1.0"),
        ({"sparsity": -0.1}, "--sparsity: input should be greater than or equal to 0; got -0.1"),
        ({"epochs": 0}, "--epochs: input should be greater than or equal to 1; got 0"),
        ({"lr": "fast"}, "--lr: input should be a valid number, unable to parse string as a number; got 'fast'"),
        ({"lr": float("nan")}, "--lr: input should be "),
        ({"opt": "lion"}, "--opt: input should be 'sgd', 'adam' or 'adamw'; got 'lion'"),
        ({"steps": "3"}, "--steps: input should be a list of EPOCH:SPARSITY; got '3'"),
        ({"sparsty": 0.5}, "no option is called 'sparsty'; did you mean 'sparsity'?"),
        ({"batchsize": 8}, "no option is called 'batchsize'; did you mean 'batch_size'?"),
    ],
)
def test_bad_flags(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(from_flags(flags))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lrr: 1}", "no option is called 'optim.lrr'; did you mean 'optim.lr'?"),
        ("sparsity: 0.5", "no option is called 'sparsity'; did you mean 'pruning.sparsity'?"),
        ("optin: {lr: 1}", "no section is called 'optin'; did you mean 'optim'?"),
        ("optim: 3", "section optim must hold keys and values; got 3"),
        ("[1, 2]", "must hold the sections data, model, pruning, optim, compute, run; got list"),
        ("a: [1", "is not YAML"),
        ("optim: {lr: -1}", "optim.lr: input should be greater than 0; got -1"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load(from_file(file))
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the configuration file .*: No such file"):
        from_file(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["lr", "optim.lr=[", "lr=3", "optim.lrr=3"])
def test_bad_sets(text: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        load(from_sets([text]))


def test_differences_name_what_decides_the_result() -> None:
    ours, theirs = load(from_flags({"lr": 0.1, "workers": 3}))[0], load(from_flags({"lr": 0.2, "log_interval": 7}))[0]
    assert differences(ours, theirs) == ["optim.lr is 0.1 here and 0.2 in the checkpoint"]
    assert differences(Config(), Config()) == []
