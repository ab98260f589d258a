"""What only a GPU can tell: bfloat16 and TF32 numbers, graphs, waits, and that no configuration changes a bit."""

import dataclasses

import pytest
import torch
from gpu_cases import Case, agrees, passes_of, run
from torch import nn

from campfire import SparseConv2d, fuse, tune_
from campfire.bench.cuda import graphed
from campfire.kernels import Conv
from campfire.kernels.gpu import configs
from campfire.mask import Mask

pytestmark = pytest.mark.gpu
LARGE = Case((256, 256, 3, 3), (64, 64), size=(8, 14, 14), dtype=torch.bfloat16, seed=1)
CASES = {
    "64x64": LARGE,
    "64x64, ordered, strided": dataclasses.replace(LARGE, ordered=True, conv=Conv(2, 1)),
    "128x32": dataclasses.replace(LARGE, block=(128, 32)),
    "128x32, taps": dataclasses.replace(LARGE, block=(128, 32), taps=True),
    "128x64, as one tile": dataclasses.replace(LARGE, block=(128, 64), tile=(128, 64)),
    "32x32, taps, ordered": dataclasses.replace(LARGE, block=(32, 32), taps=True, ordered=True),
    "16x16": dataclasses.replace(LARGE, block=(16, 16), tile=(16, 4)),
    "1x1": Case((512, 256, 1, 1), (64, 64), conv=Conv(), size=(8, 14, 14), dtype=torch.bfloat16),
    "1x1, strided": Case((512, 256, 1, 1), (128, 64), conv=Conv(2), size=(8, 15, 15), dtype=torch.bfloat16),
    "linear": Case((512, 512, 1, 1), (64, 64), conv=Conv(), size=(77, 1, 1), dtype=torch.bfloat16),
    "empty group": dataclasses.replace(LARGE, mask="empty"),
    "many pixels": dataclasses.replace(LARGE, shape=(64, 64, 3, 3), size=(64, 28, 28), mask="full"),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_passes(name: str, dtype: torch.dtype) -> None:
    agrees(dataclasses.replace(CASES[name], dtype=dtype))


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> dict[str, configs.Config]:
    """Configurations that are told, not searched for; by the pass that a key names."""
    told: dict[str, configs.Config] = {}

    def best(key, run, candidates):
        return told["d_values" if " d_values " in key else "conv"]

    monkeypatch.setattr(configs, "best", best)
    return told


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_no_configuration_changes_a_bit(dtype: torch.dtype, one_by_one: dict[str, configs.Config]) -> None:
    case = dataclasses.replace(LARGE, dtype=dtype)
    packed, found = case.packed(), []
    for conv, values in zip(configs.CONV, [*configs.VALUES, configs.VALUES[0]], strict=False):
        one_by_one.update(conv=conv, d_values=values)
        try:
            found.append(run(case, packed, passes_of(case, packed)))
            torch.cuda.synchronize()
        except Exception as error:
            if "out of resource" not in str(error):  # of shared memory: float32 needs twice as much
                raise
    assert len(found) > 1
    assert all(torch.equal(a[name], found[0][name]) for a in found for name in a)


def test_a_pass_waits_for_nothing_and_repeats_itself_bit_for_bit() -> None:
    packed = LARGE.packed()
    passes = passes_of(LARGE, packed)
    first = run(LARGE, packed, passes)
    (x, dy), value = LARGE.inputs(), packed.parts["value"]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = passes.forward(x, value, None), passes.d_input(dy, value, LARGE.input), passes.d_values(dy, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(again, first.values(), strict=True))


@pytest.mark.parametrize("kernel", ["blocks-gpu", "compact", "reference"])
def test_a_cuda_graph_of_a_training_step(kernel: str) -> None:
    torch.manual_seed(0)
    keep = LARGE.keep()
    keep[:, 128:] = False  # dead channels, for compact
    dense = nn.Conv2d(256, 256, 3, padding=1, device="cuda", dtype=torch.bfloat16)
    sparse = SparseConv2d.of(dense, Mask(keep.cuda()), "unit", kernel)
    x = LARGE.inputs()[0].requires_grad_()

    def step() -> list[torch.Tensor]:
        y = sparse(x)
        return [y, *torch.autograd.grad(y.float().square().mean(), [x, sparse.value])]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = step()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
        sparse.value.mul_(0.5)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(kept, step(), strict=True))


def test_a_whole_model_at_inference_in_one_graph() -> None:
    torch.manual_seed(0)
    keep = Mask(LARGE.keep().cuda())
    convs = [nn.Conv2d(256, 256, 3, padding=1, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    layers = [SparseConv2d.of(conv, keep, "unit", "blocks-gpu") for conv in convs]
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.BatchNorm2d(256).to("cuda", torch.bfloat16)).eval()
    x = LARGE.inputs()[0]
    with torch.inference_mode():
        net = fuse(net)
        replay = graphed(lambda: net(x))
        x.copy_(torch.randn_like(x))
        assert torch.equal(replay(), net(x))


def test_dispatch_is_never_slower_than_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPFIRE_DISPATCH", "measure")
    torch.manual_seed(0)
    sparse = SparseConv2d.of(nn.Conv2d(256, 256, 3, padding=1, device="cuda"), Mask(LARGE.keep().cuda()), "unit")
    assert sparse.choice().dense, "nothing is taken before it is timed"
    with torch.autocast("cuda", torch.bfloat16):
        plan = tune_(nn.Sequential(sparse), torch.randn(LARGE.input, device="cuda"))
    for found in plan.layers[0].passes.values():
        assert found.kernel == "reference" or (found.measured or 0) >= 1.1


def test_compiled_by_torch() -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(256, 256, 3, padding=1, device="cuda", dtype=torch.bfloat16)
    sparse = SparseConv2d.of(dense, Mask(LARGE.keep().cuda()), "unit", "blocks-gpu")
    x = LARGE.inputs()[0]
    assert torch.equal(torch.compile(sparse, fullgraph=True)(x), sparse(x))
