"""Sparse layers on GPU kernels: operators, autograd, autocast, recomputation; and what happens where Triton fails."""

import dataclasses
import warnings
from collections.abc import Iterator

import pytest
import torch
from gpu_cases import DEVICE, Case, needs_triton, passes_of
from torch import nn
from torch.utils.checkpoint import checkpoint

from campfire import SparseConv2d, SparseLinear
from campfire.kernels import Conv
from campfire.kernels.gpu import configs, toolchain
from campfire.kernels.gpu.configs import Config
from campfire.mask import Mask
from campfire.native import loading
from campfire.native.compilers import BuildFailed
from campfire.native.gpu import serving, trouble
from campfire.native.loading import NoNative

if toolchain.has_triton():
    from campfire.native.gpu import probe
pytestmark = needs_triton
CASE = Case((64, 32, 3, 3), (32, 32), size=(1, 4, 3))


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU too, by the interpreter."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(toolchain, "why_not_on", lambda device: [])


def layer(kernel: str = "blocks-gpu") -> SparseConv2d:
    torch.manual_seed(0)
    dense = nn.Conv2d(32, 64, 3, padding=1).to(DEVICE)
    return SparseConv2d.of(dense, Mask(CASE.keep().to(DEVICE)), "unit", kernel)


def gradients(sparse: nn.Module, x: torch.Tensor, *, recompute: bool = False) -> list[torch.Tensor]:
    x = x.detach().requires_grad_()
    y = checkpoint(sparse, x, use_reentrant=False) if recompute else sparse(x)
    assert isinstance(y, torch.Tensor)
    return [y.detach(), *torch.autograd.grad(y.float().square().sum(), [x, *sparse.parameters()])]


def near(found: list[torch.Tensor], wanted: list[torch.Tensor], limit: float) -> bool:
    pairs = zip(found, wanted, strict=True)
    return all(float((a.float() - b.float()).abs().max()) <= limit * float(b.abs().max()) for a, b in pairs)


def test_a_layer_trains_as_on_the_dense_library() -> None:
    sparse, dense, x = layer(), layer("reference"), CASE.inputs()[0]
    assert str(sparse.choice()) == "blocks-gpu"
    found = gradients(sparse, x)
    assert near(found, gradients(dense, x), 1e-2 if DEVICE.type == "cuda" else 1e-5)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert found[1].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(found, gradients(sparse, x, recompute=True), strict=True))


def test_autocast_to_float16() -> None:
    x = CASE.inputs()[0]
    with torch.autocast(DEVICE.type, torch.float16):
        found, wanted = gradients(layer(), x), gradients(layer("reference"), x)
    assert found[0].dtype == torch.float16
    assert {g.dtype for g in found[1:]} == {torch.float32}
    assert near(found, wanted, 5e-3)


def test_operators_tell_shapes_and_strides() -> None:
    sparse, (x, dy) = layer(), CASE.inputs()
    number, value = sparse._passes[torch.float32].number, sparse.value.detach().view(sparse._value_shape)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.campfire.conv, (x, value, sparse.bias, number), test_utils=checks)
    torch.library.opcheck(torch.ops.campfire.conv_d_input, (dy, value, list(x.shape), number), test_utils=checks)
    torch.library.opcheck(torch.ops.campfire.conv_d_values, (dy, x, number), test_utils=checks)


def test_a_linear_layer() -> None:
    dense = nn.Linear(64, 32).to(DEVICE)
    keep = torch.zeros(32, 64, 1, 1, dtype=torch.bool, device=DEVICE)
    keep[:16, 16:48] = True
    sparse = SparseLinear.of(dense, Mask(keep), "unit", "blocks-gpu")
    x = torch.randn(2, 5, 64, device=DEVICE)
    wanted = nn.functional.linear(x, dense.weight * keep[:, :, 0, 0], dense.bias)
    assert torch.allclose(sparse(x), wanted, atol=1e-2 if DEVICE.type == "cuda" else 1e-5)


def test_where_a_kernel_fails_the_library_runs_and_one_warning_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, (x, dy) = CASE.packed(), CASE.inputs()
    passes, value = passes_of(CASE, packed), packed.parts["value"]

    def broken(*_: object) -> None:
        raise RuntimeError("no compiler\nand a long story")

    from campfire.kernels.gpu import launch

    for name in ("forward", "d_input", "d_values"):
        monkeypatch.setattr(launch, name, broken)
    monkeypatch.setattr(toolchain, "interpreted", lambda: False)
    monkeypatch.setattr(toolchain, "runs_on", lambda device: True)
    monkeypatch.setattr(loading, "_warned", set())
    monkeypatch.setattr(trouble, "_told", set())
    with pytest.warns(NoNative, match="no GPU kernels, torch and .* slower: RuntimeError: no compiler$"):
        y = passes.forward(x, value, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert passes.d_input(dy, value, CASE.input).shape == x.shape
        assert torch.equal(passes_of(CASE, packed).forward(x, value, None), y)
    assert torch.equal(y, passes.dense.forward(x, value, None))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(launch, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        passes_of(CASE, packed).forward(x, value, None)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A GPU, as far as those can tell who only ask for it; nothing was told yet."""
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(loading, "_warned", set())
    monkeypatch.setattr(trouble, "_told", set())
    monkeypatch.setattr(serving, "_failed", [])
    trouble.trouble.cache_clear()
    yield torch.device("cuda", 0)
    trouble.trouble.cache_clear()


def broken(device: torch.device) -> None:
    raise RuntimeError("ptxas is not here\nand a long story")


@pytest.mark.parametrize("what", ["missing", "broken"])
def test_a_gpu_without_triton_is_told_once_by_masks_and_blocks(
    what: str, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "Triton is not installed" if what == "missing" else "Triton fails here: RuntimeError: ptxas is not here"
    monkeypatch.setattr(trouble, "has_triton", lambda: what == "broken")
    monkeypatch.setattr(probe, "probe", broken)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert not serving.serves(gpu)
        assert toolchain.why_not_on(gpu) == [reason]
        assert not serving.serves(gpu)
    assert [str(w.message) for w in told] == [
        f"no GPU kernels, torch and the dense library do their work, slower: {reason}"
    ]
    monkeypatch.setenv("CAMPFIRE_NATIVE", "require")
    with pytest.raises(BuildFailed, match=reason):
        toolchain.why_not_on(gpu)


def test_what_only_blocks_fail_with_is_told_beside_what_masks_fail_with(gpu: torch.device) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for what, reason in (("masks", "a"), ("blocks", "a"), ("blocks", "b"), ("blocks", "c"), ("masks", "d")):
            trouble.tell(what, reason)
    assert [str(w.message)[-1] for w in told] == ["a", "b"]


def test_gpus_that_are_not_asked(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "this GPU has 7.5" in toolchain.why_not_on(gpu)[0]
    monkeypatch.setenv("CAMPFIRE_NATIVE", "0")
    assert "CAMPFIRE_NATIVE=0" in toolchain.why_not_on(gpu)[0]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[dict[str, object]]:
    """A search that nothing of this machine is part of: what was run, and the milliseconds of each configuration."""
    found: dict[str, object] = {"runs": [], "ms": {}, "capturing": False}
    monkeypatch.setenv("CAMPFIRE_CACHE", str(tmp_path))
    monkeypatch.setenv("CAMPFIRE_DISPATCH", "measure")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: found["capturing"])
    monkeypatch.setattr(configs.clocks, "events", lambda run: found["ms"][run()])  # pyright: ignore
    configs.forget()
    yield found
    configs.forget()


CONFIGS = Config(128, 4, 3), Config(64, 4, 4), Config(256, 8, 3)


def test_the_fastest_that_runs_is_found_once(search: dict) -> None:
    search["ms"] = {CONFIGS[0]: 2.0, CONFIGS[1]: 1.0}

    def run(config: Config) -> Config:
        search["runs"].append(config)
        if config == CONFIGS[2]:
            raise RuntimeError("out of shared memory")
        return config

    assert configs.best("a", run, CONFIGS) == CONFIGS[1]
    tried = len(search["runs"])
    assert configs.best("a", run, CONFIGS) == CONFIGS[1]
    configs.forget()  # another process
    assert configs.best("a", run, CONFIGS) == CONFIGS[1]
    assert len(search["runs"]) == tried
    search["ms"] = dict.fromkeys(CONFIGS, 1.0)
    assert configs.best("b", run, CONFIGS[::-1]) == CONFIGS[1]
    with pytest.raises(RuntimeError, match="shared memory"):
        configs.best("c", run, CONFIGS[2:])


def test_nothing_is_timed_in_a_graph_or_where_nobody_wants_it(search: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    search["capturing"] = True
    assert configs.best("a", search["runs"].append, CONFIGS) == CONFIGS[0]
    assert search["runs"] == []
    search["capturing"] = False
    monkeypatch.setenv("CAMPFIRE_DISPATCH", "model")
    assert configs.best("a", search["runs"].append, CONFIGS) == CONFIGS[0]
    assert search["runs"] == [CONFIGS[0]]


def test_dilation_is_served() -> None:
    case = dataclasses.replace(CASE, conv=Conv(1, 2, dilation=2))
    dense = nn.Conv2d(32, 64, 3, padding=2, dilation=2).to(DEVICE)
    sparse = SparseConv2d.of(dense, Mask(case.keep().to(DEVICE)), "unit", "blocks-gpu")
    x = case.inputs()[0]
    wanted = nn.functional.conv2d(x, sparse.weight, sparse.bias, padding=2, dilation=2)
    assert torch.allclose(sparse(x), wanted, atol=1e-2 if DEVICE.type == "cuda" else 1e-5)
