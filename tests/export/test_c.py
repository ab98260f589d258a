"""The standalone C program: equal to the model, built by cc as an engineer would, and careful with its weights."""

import ctypes
import itertools
import math
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from campfire import models
from campfire.errors import CampfireError, DoesNotFit
from campfire.export import Subject, c, export
from campfire.export.c_memory import places
from campfire.export.c_steps import program
from campfire.structures import named

CC = shutil.which("cc")
pytestmark = pytest.mark.skipif(CC is None, reason="needs cc")

MAIN = """
#include <stdio.h>
#include "net.h"
int main(int n, char **given) {
  static float image[CAMPFIRE_IMAGE], result[CAMPFIRE_RESULT];
  if (campfire_run(image, result) != CAMPFIRE_NOT_LOADED) return 1;
  if (n != 2 || campfire_load(given[1])) return 2;
  if (fread(image, sizeof(float), CAMPFIRE_IMAGE, stdin) != CAMPFIRE_IMAGE || campfire_run(image, result)) return 3;
  return fwrite(result, sizeof(float), CAMPFIRE_RESULT, stdout) != CAMPFIRE_RESULT;
}
"""


def thinned(layer: nn.Conv2d | nn.Linear, structure: str, sparsity: float) -> None:
    """Zeros as a structure places them."""
    kind, weight = named(structure), layer.weight.data
    score = weight.abs() if weight.dim() == 4 else weight.abs()[:, :, None, None]
    plan, count = kind.plan(score, sparsity), kind.count(tuple(score.shape), sparsity)
    weight *= kind.project(score, count, plan, torch.ones_like(score, dtype=torch.bool)).view(weight.shape)


def resnet() -> nn.Module:
    """Patterns with strides, scattered weights, dense layers, normalisations and shortcuts."""
    torch.manual_seed(0)
    model = models.create("resnet8", num_classes=10, width=0.5)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and name != "conv1":
            thinned(layer, "fine" if "layer2.0.conv2" in name else "pattern:book=auto:4", 0.75)
    model(torch.randn(8, 3, 14, 14))
    return model.eval()


class Odd(nn.Module):
    """What ResNets have not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2))
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.most = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.mean = nn.AvgPool2d(2)
        self.spread = nn.AdaptiveAvgPool2d((2, 3))
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(96, 20), nn.ReLU(), nn.Dropout(0.5))
        self.last = nn.Linear(20, 7, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        y = self.norm(torch.relu(self.depthwise(x)))
        x = self.most(torch.cat([x + y, y], dim=1))
        return self.last(self.hidden(self.spread(x)))


def odd() -> nn.Module:
    torch.manual_seed(1)
    model = Odd()
    thinned(model.hidden[1], "fine", 0.8)  # pyright: ignore[reportArgumentType]
    model(torch.randn(8, 3, 13, 11))
    return model.eval()


def test_a_program_of_its_own_computes_the_same(tmp_path: Path) -> None:
    model, x = resnet(), torch.randn(2, 3, 14, 14)
    found = export(Subject(model, x), tmp_path / "net.c", "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.bin", "net.c", "net.h"]
    assert found["weights_bytes"] == (tmp_path / "net.bin").stat().st_size
    assert {"dense", "patterned", "scattered"} == set(found["layers"].values())
    (tmp_path / "main.c").write_text(MAIN)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsanitize=address,undefined", "-O1", "-g"]
    command = ["cc", *strict, "main.c", "net.c", "-o", "program", "-lm"]
    subprocess.run(command, cwd=tmp_path, check=True)
    image = x[1].contiguous().numpy().tobytes()
    done = subprocess.run(["./program", "net.bin"], cwd=tmp_path, input=image, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = torch.tensor(struct.unpack("<10f", done.stdout))
    with torch.no_grad():
        torch.testing.assert_close(result, model(x)[1], rtol=1e-4, atol=1e-5)


def test_the_parts_that_resnets_have_not(tmp_path: Path) -> None:
    found = export(Subject(odd(), torch.randn(2, 3, 13, 11)), tmp_path / "net.c", "c")
    assert found["checked_by"] == "cc"
    assert found["layers"]["hidden.1"] == "scattered"
    text = (tmp_path / "net.c").read_text()
    assert "dense(" in text
    assert "max_pool(" in text
    assert "static void mean_pool" not in text  # nothing that is not called


class Calls(nn.Module):
    """A forward pass in a line."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module):
        super().__init__()
        self.steps = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.steps(self, x)


def joined_twice(m: Any, x: Tensor) -> Tensor:
    y, z = m.a(x), m.b(x)
    return torch.cat((y, z, y), 1)


def changed_in_place(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    kept = y.view(y.shape)
    z = m.c(torch.relu_(y))
    kept += z
    return m.c(y) + kept  # y, z and kept, all changed since


def seen_otherwise(m: Any, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    x = m.d(x.reshape(n, c * 4, h // 2, w // 2))
    return m.c(x.mean((2, 3)).unsqueeze(-1).view(x.size(0), -1, 1, 1))


def two(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size)


SERVED = {
    "joined twice": lambda: Calls(joined_twice, a=two(3, 4, 3), b=two(3, 2, 3)),
    "changed in place": lambda: Calls(changed_in_place, a=two(3, 4, 3), c=two(4, 4, 1)),
    "seen otherwise": lambda: Calls(seen_otherwise, d=two(12, 4, 3), c=two(4, 2, 1)),
    "one image alone": lambda: Calls(lambda m, x: m.d(x.view(1, 12, 4, 4)), d=two(12, 4, 3)),
    "nothing at all": nn.Flatten,
    "rows": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5)),
}


@pytest.mark.parametrize("name", SERVED)
def test_calls_between_layers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = export(Subject(SERVED[name]().eval(), torch.randn(2, 3, 8, 8)), tmp_path / "net.c", "c")
    assert found["max_abs_difference"] <= 1e-5 * found["largest_logit"]


REFUSED = [
    (Calls(lambda m, x: m.a(x.flatten(2)), a=nn.Linear(64, 5)), r"2 axes; got \[1, 3, 64\]"),
    (Calls(lambda m, x: m.a(x) + m.a(x).mean((2, 3), keepdim=True), a=two(3, 4, 3)), "equal shapes"),
    (Calls(lambda m, x: m.a(x) + x.size(0), a=two(3, 4, 3)), "size, which is no tensor"),
    (Calls(lambda m, x: x.flatten(2).mean((-2, -1))), r"4 axes; got \[1, 3, 64\]"),
    (Calls(lambda m, x: {"logits": m.a(x)}, a=two(3, 4, 3)), "something else than one tensor"),
    (Calls(lambda m, x: x.sum()), "the image as its first axis"),
]


@pytest.mark.parametrize(("net", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_c_would_compute_otherwise_is_refused(net: nn.Module, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match=reason):
        export(Subject(net, torch.randn(2, 3, 8, 8)), tmp_path / "net.c", "c")
    assert not list(tmp_path.iterdir())


def library(folder: Path) -> ctypes.CDLL:
    flags = ["-shared", "-fPIC", "-fopenmp", "-O1", "net.c", "-o", "net.so", "-lm"]
    subprocess.run(["cc", *flags], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "net.so"))


def test_weights_that_are_not_its_own_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    export(Subject(model, torch.randn(2, 1, 4, 4)), tmp_path / "net.c", "c")
    code, good = library(tmp_path), (tmp_path / "net.bin").read_bytes()
    image, result = (ctypes.c_float * 16)(), (ctypes.c_float * 2)()
    missing, bad, unloaded = 1, 2, 4
    assert code.campfire_run(image, result) == unloaded
    assert code.campfire_load(str(tmp_path / "nothing").encode()) == missing
    damaged = bytes([good[0] ^ 1]) + good[1:]
    for wrong in (b"", good[:-1], good + b"\0", damaged):
        (tmp_path / "wrong.bin").write_bytes(wrong)
        assert code.campfire_load(str(tmp_path / "wrong.bin").encode()) == bad
    assert code.campfire_use(None, len(good)) == bad
    assert code.campfire_run(image, result) == unloaded
    memory = ctypes.create_string_buffer(good, len(good))
    assert code.campfire_use(memory, len(good)) == 0
    assert code.campfire_run(image, result) == 0
    assert all(map(math.isfinite, result))


def test_values_that_live_together_lie_apart() -> None:
    steps = program(resnet(), torch.randn(1, 3, 14, 14))
    at, floats = places(steps)
    for i, step in enumerate(steps.steps):
        read = {name for later in steps.steps[i:] for name in (*later.reads, later.residual) if name in at}
        made = {earlier.makes for earlier in steps.steps[: i + 1]} & at.keys()
        ranges = sorted((at[n], at[n] + math.prod(steps.sizes[n])) for n in made & (read | {step.makes}))
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges)), step.name
    assert max(at[n] + math.prod(steps.sizes[n]) for n in at) <= floats


def test_what_has_no_c_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Softmax(1))
    with pytest.raises(DoesNotFit) as raised:
        export(Subject(net, torch.randn(2, 3, 6, 6)), tmp_path / "net.c", "c")
    assert [reason.partition("there is no C for ")[2] for reason in raised.value.reasons] == ["GELU", "Softmax"]
    with pytest.raises(DoesNotFit, match="a word"):
        export(Subject(net, torch.randn(2, 3, 6, 6)), tmp_path / "my-net.c", "c")
    assert not list(tmp_path.iterdir())


def test_files_of_others_are_not_written_over(tmp_path: Path) -> None:
    net = Subject(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), torch.randn(2, 1, 4, 4))
    for name in ("net.bin", "net.h"):  # the checkpoint that is exported, say
        (tmp_path / name).write_text("mine")
        with pytest.raises(DoesNotFit, match=rf"{name} would be written too, and is not campfire's; move it"):
            export(net, tmp_path / "net.c", "c")
        assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
        (tmp_path / name).unlink()
    export(net, tmp_path / "net.c", "c")
    export(net, tmp_path / "net.c", "c")  # its own it replaces
    (tmp_path / "net.bin").unlink()
    (tmp_path / "net.bin").mkdir()
    with pytest.raises(DoesNotFit, match=r"net\.bin would be written too"):
        export(net, tmp_path / "net.c", "c")


def test_a_program_that_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = c.code

    def wrong(*given: object) -> c.Code:
        made = real(*given)  # pyright: ignore[reportArgumentType]
        return c.Code(made.source.replace("sum += w[", "sum += 1.01f * w["), made.header, made.blob, 0, {})

    monkeypatch.setattr(c, "code", wrong)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with pytest.raises(CampfireError, match="computes something else"):
        export(Subject(net, torch.randn(2, 1, 4, 4)), tmp_path / "net.c", "c")
    assert not list(tmp_path.iterdir())


def test_a_subclass_of_what_does_nothing_is_refused(tmp_path: Path) -> None:
    class Doubling(nn.Identity):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * input if input.sum() > -1e9 else input

    net = Subject(nn.Sequential(nn.Conv2d(3, 4, 3), Doubling()), torch.randn(2, 3, 6, 6))
    with pytest.raises(DoesNotFit, match="there is no C for Doubling"):
        export(net, tmp_path / "net.c", "c")
