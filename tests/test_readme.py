"""Every command and every block of Python in the documentation runs; long ones in a reduced form."""

import json
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from PIL import Image

from campfire.cli import main
from campfire.models import create

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = ["--epochs", "3", "--model", "resnet8", "--set", "model.kwargs={width: 0.25}"]


def blocks(language: str) -> list:
    """All fenced blocks of a language, with a name that says where they stand."""
    found = []
    for page in PAGES:
        for i, text in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)):
            found.append(pytest.param(text, id=f"{page.stem}-{i}"))
    return found


def images(folder: pathlib.Path) -> None:
    """Eight small images in two classes, for training and validation."""
    for split in ("train", "val"):
        for c, color in (("bright", 220), ("dark", 30)):
            (folder / split / c).mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (32, 32), (color, 10 * i, color)).save(folder / split / c / f"{i}.png")


def theirs(file: str) -> None:
    """A checkpoint of another program."""
    torch.save(create("resnet8", num_classes=10).state_dict(), file)


def stubbed(grid: str) -> None:
    """Half of the repository's grid, with a program that only counts epochs in place of training."""
    tree = yaml.safe_load((ROOT / grid).read_text())
    if "sparse" in tree["groups"]:
        tree["groups"]["sparse"]["product"] = {"structure": ["ck"]}
    tree["command"] = [sys.executable, str(ROOT / "tests" / "sweep" / "stub_trial.py")]
    pathlib.Path(grid).parent.mkdir(exist_ok=True)
    pathlib.Path(grid).write_text(yaml.safe_dump(tree))


def run(line: str) -> None:
    """One command line of the documentation, small enough for a test."""
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        make(words[1:])
        return
    if words[:2] == ["bash", "bench/gpu.sh"]:  # tests/bench/test_gpu_script.py runs it, in the form for any machine
        assert (ROOT / words[1]).exists()
        return
    command, argv = pathlib.Path(words[0]).name, [here(word) for word in words[1:]]
    assert command == "campfire", f"a test does not know how to run {line!r}"
    if argv[0] == "train":
        argv += SMALL
    if argv[0] == "sweep" and argv[1].endswith(".yaml"):
        stubbed(argv[1])
    if argv[:2] == ["bench", "masks"]:
        argv += ["--model", "resnet8", "--rounds", "1"]
    if argv[:2] in (["bench", "kernels"], ["bench", "model"]):
        argv += ["--model", "resnet8", "--size", "32", "--batches", "2", "--rounds", "1"]
    if argv[:2] == ["explain", "resnet50"]:
        argv = ["explain", "resnet8", *argv[2:], "--size", "32", "--batch", "2", "--dispatch", "model"]
    if argv[:2] == ["cost", "resnet20"]:
        argv = ["cost", "resnet8", *argv[2:]]
    if argv[:2] == ["regroup", "runs/a"]:
        argv = [re.sub(r"\d+x\d+", eighth, word) for word in argv]
    if argv[0] == "export" and "onnx" in argv:
        pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    assert main(argv) == 0, line


def here(word: str) -> str:
    """Records that the repository holds, from any folder."""
    return str(ROOT / word) if word.startswith("bench/results/") else word


def eighth(block: re.Match[str]) -> str:
    """Of a block that is for wider layers than SMALL has."""
    return "x".join(str(max(1, int(n) // 8)) for n in block.group().split("x"))


def make(words: list[str]) -> None:
    """The Makefile's demo with this interpreter, two epochs and one round; `make test` is this very run."""
    if words == ["test"]:
        return
    stamp, demo = pathlib.Path("stamp").resolve(), pathlib.Path("demo").resolve()
    stamp.touch()
    given = [f"STAMP={stamp}", f"BIN={pathlib.Path(sys.executable).parent}", f"DEMO={demo}", "EPOCHS=2", "ROUNDS=1"]
    done = subprocess.run(["make", "-C", str(ROOT), *words, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (demo / "ck" / "model.safetensors").exists()
    assert "top-1" in done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The two runs that the documentation speaks of, in ``runs/``, trained once for all its pages."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("a", "b"):
            assert main(["train", "synthetic", "--output", f"runs/{name}", *SMALL]) == 0
    return folder


@pytest.mark.parametrize("text", blocks("sh"))
@pytest.mark.xdist_group("readme")
def test_commands(
    text: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    if "bench model" in text or "make demo" in text:
        monkeypatch.setenv(
            "CAMPFIRE_DISPATCH", "model"
        )  # timing every kernel of every layer takes longer than the rest
    images(tmp_path / "FOLDER")
    images(tmp_path / "CIFAR10")
    (tmp_path / "run.yaml").write_text("data: {source: digits}\n")
    theirs("theirs.pt")
    if "runs/a" in text or "runs/b" in text:
        shutil.copytree(request.getfixturevalue("trained") / "runs", tmp_path / "runs")
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            run(line.replace("--output runs/a", "--output runs/a2") if line.startswith("campfire train") else line)


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text()], ids=lambda p: p.stem)
def test_python(page: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page are one program, after the commands that write what it reads."""
    monkeypatch.chdir(tmp_path)
    program = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    if "blocks.pt" in program:
        theirs("theirs.pt")
        assert main(["regroup", "theirs.pt", "--block", "16x1", "--sparsity", "0.8", "--output", "blocks.pt"]) == 0
    exec(compile(program, page.name, "exec"), {"__name__": page.stem})


def test_one_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "one_line.py"))["main"](str(tmp_path / "run"), epochs=3)
    assert "true sparsity 0.6997" in capsys.readouterr().out


def test_own_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert runpy.run_path(str(ROOT / "examples" / "own_loop.py"))["main"](epochs=3) == pytest.approx(0.7, abs=1e-3)
    assert "pruned layers" in capsys.readouterr().out


def test_add_a_structure(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "add_a_structure.py"))["main"](epochs=2)
    assert "conformance cases pass" in capsys.readouterr().out


def test_the_readme_quotes_what_the_demo_prints(tmp_path: pathlib.Path) -> None:
    """Weights kept do not depend on the machine: the table's are those of the network that the demo trains."""
    flags = ["--structure", "ck", "--sparsity", "0.7", "--epochs", "2", "--output", str(tmp_path / "run")]
    assert main(["train", "digits", *flags]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `ck` |"))
    assert f"{summary['kept_weights']:,} of {summary['weights']:,}" in row
    assert f"{summary['sparsity_true']:.4f}" in row
