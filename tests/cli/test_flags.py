"""Parsers: every one can be built, says its mistakes in one line, and needs no torch."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from campfire import cli
from campfire.cli import train
from campfire.config import OPTIONS
from campfire.errors import UsageError


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_shows_help_without_torch(name: str) -> None:
    code = (
        "import sys\nfrom campfire.cli import main\ntry: code = main([sys.argv[1], '--help'])\n"
        "except SystemExit as stop: code = stop.code\nsys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


@pytest.mark.parametrize("target", [target for target, _ in cli.COMMANDS.values()])
def test_every_command_is_there(target: str) -> None:
    module, function = target.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_option_has_a_flag() -> None:
    found = {action.dest for action in train.parser()._actions}
    assert set(OPTIONS) <= found


def given(*argv: str) -> dict[str, object]:
    return {k: v for k, v in vars(train.parser().parse(argv)).items() if "." in k}


def test_only_given_flags_come_back() -> None:
    assert given() == {}
    assert given("--epochs", "3", "DIR", "-b8") == {"optim.epochs": "3", "data.source": "DIR", "data.batch_size": "8"}


@pytest.mark.parametrize(
    ("argv", "path", "value"),
    [
        (["--batch_size=8"], "data.batch_size", "8"),
        (["--data-dir", "x"], "data.source", "x"),
        (["--data", "x"], "data.source", "x"),
        (["--arch", "resnet20"], "model.name", "resnet20"),
        (["-a", "resnet20"], "model.name", "resnet20"),
        (["--wd", "0"], "optim.weight_decay", "0"),
        (["--amp"], "compute.amp", True),
        (["--no-channels-last"], "compute.channels_last", False),
        (["--model-kwargs", "width=2", "x=a"], "model.kwargs", {"width": 2, "x": "a"}),
        (
            ["--rules", "fc=fine-fc", "--rules", "layer1.*=window"],
            "pruning.rules",
            {"fc": "fine-fc", "layer1.*": "window"},
        ),
        (["--steps", "2:0.3", "4:0.5"], "pruning.steps", ["2:0.3", "4:0.5"]),
    ],
)
def test_spellings(argv: list[str], path: str, value: object) -> None:
    assert given(*argv) == {path: value}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--sparsty", "0.5"], "no option is called '--sparsty'; did you mean '--sparsity'?"),
        (["--spars", "0.5"], "no option is called '--spars'; did you mean '--sparsity'?"),
        (["--zzzz"], "no option is called '--zzzz'; campfire train --help lists them"),
        (["--lr"], "argument --lr: expected one argument"),
        (["--model-kwargs", "width"], "--model-kwargs wants KEY=VALUE; got 'width'"),
        (["a", "b"], "no option is called 'b'"),
    ],
)
def test_mistakes(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        given(*argv)
    assert str(caught.value).startswith(message)


def test_print_config_shows_origins(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("optim: {lr: 0.3}")
    assert cli.main(["train", "--config", str(file), "--set", "run.seed=1", "--epochs", "9", "--print-config"]) == 0
    text = capsys.readouterr().out
    for line in (f"lr: 0.3  # {file}", "seed: 1  # --set", "epochs: 9  # flag", "era_start: 3.0  # derived"):
        assert line in text


@pytest.mark.parametrize(
    "argv",
    [
        ["trian"],
        ["train", "--config", "no/such.yaml"],
        ["train", "--epochs", "3", "--era-start", "5"],
        ["train", "--sparsity", "1.5"],
        ["train", "--sparsty", "1"],
        ["eval"],
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"campfire {argv[0]}: ")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert cli.main(["--version"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.COMMANDS)
    assert out.endswith("0.1.0\n")
