"""Blocks on tensor cores against float64: every pass, block, packing and geometry, by Triton's interpreter or on a GPU."""

import dataclasses

import pytest
import torch
from gpu_cases import DEVICE, Case, agrees, dense, needs_triton, passes_of, poisoned, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campfire.compress.compressing import best_layout
from campfire.kernels import KERNELS, Conv
from campfire.kernels.gpu import configs, toolchain
from campfire.kernels.gpu.configs import Config
from campfire.kernels.gpu.index import Blocks, Reads, sides
from campfire.mask import Mask
from campfire.packed import pack
from campfire.structures import named

pytestmark = needs_triton
GPU = torch.device("cuda")
HALF, BRAIN = torch.float16, torch.bfloat16
CASES = {
    "64x64": Case((128, 64, 3, 3), size=(2, 4, 5)),
    "64x64, strided, as one tile": Case((128, 64, 3, 3), tile=(64, 64), conv=Conv(2, 1), dtype=HALF),
    "128x32, ordered": Case((128, 64, 3, 3), (128, 32), ordered=True, size=(1, 6, 5), seed=1),
    "128x32, taps, strided": Case((128, 64, 3, 3), (128, 32), taps=True, conv=Conv(2, 1), dtype=BRAIN, seed=2),
    "64x32, taps, ordered, strided": Case((128, 32, 3, 3), (64, 32), taps=True, ordered=True, conv=Conv(2, 0)),
    "32x32, no padding": Case((64, 64, 3, 3), (32, 32), conv=Conv(1, 0), size=(3, 5, 4)),
    "32x32, padding 2": Case((64, 64, 3, 3), (32, 32), conv=Conv(1, 2), size=(1, 4, 5), dtype=BRAIN, seed=3),
    "32x64, 5x5": Case((64, 64, 5, 5), (32, 64), taps=True, conv=Conv(2, 2), size=(1, 5, 5)),
    "16x16, in tiles of 16 x 1": Case((48, 48, 3, 3), (16, 16), tile=(16, 1), size=(1, 4, 4)),
    "tiles larger than blocks": Case((256, 128, 1, 1), (256, 128), tile=(256, 128), conv=Conv(), size=(1, 5, 5)),
    "1x1": Case((128, 64, 1, 1), (64, 32), conv=Conv(), ordered=True, dtype=HALF),
    "1x1, strided": Case((64, 128, 1, 1), (64, 64), conv=Conv(2), size=(2, 5, 6), dtype=BRAIN),
    "1x1, padded": Case((64, 64, 1, 1), (32, 64), conv=Conv(1, 1), size=(1, 3, 4)),
    "linear": Case((128, 128, 1, 1), conv=Conv(), size=(37, 1, 1)),
    "dilated": Case((64, 64, 3, 3), (32, 64), conv=Conv(1, 2, dilation=2), size=(1, 6, 6)),
    "stride 3": Case((64, 64, 3, 3), (64, 32), conv=Conv(3, 1), size=(1, 7, 8)),
    "empty group": Case((128, 64, 3, 3), (64, 32), mask="empty", taps=True, size=(1, 5, 5)),
    "nothing lives": Case((64, 64, 3, 3), mask="none", size=(1, 3, 3)),
    "everything lives": Case((64, 64, 3, 3), mask="full", size=(1, 4, 4)),
    "one pixel": Case((64, 64, 3, 3), size=(1, 1, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_passes(name: str) -> None:
    agrees(CASES[name])


@settings(max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([(16, 16), (32, 32), (64, 32)]),
    st.sampled_from([(16, 2), (16, 16), (32, 4)]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 2),
    st.integers(0, 2),
    st.tuples(st.integers(1, 3), st.integers(3, 6), st.integers(3, 6)),
    st.sampled_from([torch.float32, HALF, BRAIN]),
    st.integers(0, 99),
)
def test_any_layer(block, tile, taps, ordered, stride, padding, size, dtype, seed) -> None:
    height = max(block[0], tile[0])
    agrees(Case((64, 32, 3, 3), (height, block[1]), taps, tile, ordered, Conv(stride, padding), size, dtype, seed=seed))


def test_parts_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over parts, then over the parts."""
    from campfire.kernels.gpu import launch

    monkeypatch.setattr(launch, "PART", 32)
    agrees(Case((64, 64, 3, 3), (32, 64), size=(2, 6, 6)))
    for dtype in (torch.float32, BRAIN):
        agrees(dataclasses.replace(CASES["1x1"], size=(3, 6, 5), dtype=dtype))


@pytest.mark.skipif(DEVICE.type == "cuda", reason="a GPU searches for its own")
@pytest.mark.parametrize(("pixels", "boxes"), [(64, 4), (16, 1)])
def test_other_configurations(pixels: int, boxes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of as many boxes as are summed together, of more and of fewer."""
    monkeypatch.setattr(configs, "SMALL", (Config(pixels, 4, 2), Config(boxes, 4, 2)))
    case = Case((64, 64, 3, 3), (32, 32), taps=True, size=(1, 4, 5), dtype=HALF, seed=1)
    teams = passes_of(case, case.packed()).teams[boxes][:, 1]
    assert int(teams.max()) == boxes
    assert boxes == 1 or int(teams.min()) < boxes
    agrees(case)


def test_long_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of more entries than 32 bits tell apart, or so it thinks."""
    from campfire.kernels.gpu import launch

    monkeypatch.setattr(launch, "REACH", 1)
    agrees(dataclasses.replace(CASES["64x32, taps, ordered, strided"], size=(1, 5, 5)))


@pytest.mark.parametrize("ordered", [False, True])
def test_epilogue(ordered: bool) -> None:
    case = dataclasses.replace(CASES["64x64"], ordered=ordered, size=(1, 4, 5))
    packed, x = case.packed(), case.inputs()[0]
    bias, residual = torch.randn(128, device=DEVICE), torch.randn(1, 128, 4, 5, device=DEVICE)
    passes, value = passes_of(case, packed), packed.parts["value"]
    with poisoned():
        got = passes.forward(x, value, bias, residual, relu=True)
    wanted = passes.dense.forward(x, value, bias, residual, relu=True)
    assert torch.allclose(got, wanted, atol=1e-2 if DEVICE.type == "cuda" else 1e-4)
    nan = residual.index_fill(3, torch.tensor([2], device=DEVICE), float("nan"))
    assert torch.equal(passes.forward(x, value, bias, nan, relu=True).isnan(), nan.isnan())


@pytest.mark.filterwarnings("ignore:invalid value")  # of NumPy, which the interpreter multiplies with
def test_nan_and_infinity_reach_what_they_belong_to_only() -> None:
    case = Case((64, 64, 3, 3), size=(1, 7, 7))
    packed = case.packed()
    dy = torch.zeros(1, 64, 7, 7, device=DEVICE)
    dy[..., 3, 3] = float("inf")
    dx = passes_of(case, packed).d_input(dy, packed.parts["value"], case.input)
    assert not dx[..., 3, 3].isfinite().all()
    dx[..., 2:5, 2:5] = 0
    assert (dx == 0).all()


def test_any_memory_format_is_taken() -> None:
    case = dataclasses.replace(CASES["1x1"], dtype=torch.float32)
    packed, (x, dy) = case.packed(), case.inputs()
    passes, value = passes_of(case, packed), packed.parts["value"]
    assert torch.equal(passes.forward(x.contiguous(), value, None), passes.forward(x, value, None))
    assert torch.equal(passes.d_values(dy.contiguous(), x.contiguous()), passes.d_values(dy, x))


def test_tf32_where_the_library_uses_it() -> None:
    """By the old switch and by the new one, which makes the old one raise."""
    from campfire.kernels.gpu.launch import _precision

    cudnn, x = torch.backends.cudnn, torch.zeros(1)
    assert _precision(x) == cudnn.conv.fp32_precision == "tf32"
    with cudnn.flags(allow_tf32=False):
        assert _precision(x) == "ieee"
    try:
        cudnn.conv.fp32_precision = "ieee"
        assert _precision(x) == "ieee"
        assert _precision(x.half()) == "tf32"
    finally:
        cudnn.conv.fp32_precision = "tf32"


def test_other_dtypes_run_dense() -> None:
    case = dataclasses.replace(CASES["1x1"], dtype=torch.float64)
    packed = case.packed()
    got, passes = run(case, packed, passes_of(case, packed)), passes_of(case, packed)
    assert torch.equal(got["forward"], passes.dense.forward(case.inputs()[0], packed.parts["value"], None))


def test_without_triton_the_library_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["empty group"]
    packed = case.packed()
    kernels = run(case, packed, passes_of(case, packed))
    monkeypatch.setattr(toolchain, "runs_on", lambda device: False)
    library = run(case, packed, passes_of(case, packed))
    for name, found in library.items():
        assert torch.allclose(found, kernels[name], atol=1e-3 * float(found.abs().max()))


@pytest.mark.parametrize("field", range(6))
def test_a_wrong_index_is_seen(field: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Reads.ahead

    def wrong(blocks: Blocks, conv: Conv) -> Reads:
        reads = right(blocks, conv)
        entry = reads.entry.clone()
        entry[:-1, field] = entry[:-1, field].flip(0) if field < 4 else entry[:-1, field] - 1
        return dataclasses.replace(reads, entry=entry)

    monkeypatch.setattr(Reads, "ahead", wrong)
    with pytest.raises(AssertionError, match=r"forward|d_values"):
        agrees(Case((64, 128, 3, 3), taps=True, size=(1, 3, 3), seed=4))


def test_the_largest_boxes_are_found() -> None:
    for block in ((128, 64), (64, 32), (16, 16)):
        for taps in (False, True):
            for tile in ((16, 4), block):
                case = Case((128, 64, 3, 3), block, taps, tile, seed=1)
                assert sides(case.packed()) == block
                blocks, keep = (
                    Blocks.of(case.packed()),
                    case.keep().view(128 // block[0], block[0], 64 // block[1], block[1], 9),
                )
                assert torch.equal(torch.stack([blocks.group, blocks.run, blocks.tap], 1), keep[:, 0, :, 0].nonzero())


def test_groups_with_most_to_do_come_first() -> None:
    reads = Reads.ahead(Blocks.of(Case((128, 64, 3, 3), (32, 32), seed=5).packed()), Conv(1, 1))
    lengths = reads.start.diff()[reads.rank.long()]
    assert (lengths[1:] <= lengths[:-1]).all()
    assert sorted(reads.rank.tolist()) == list(range(4))


@pytest.mark.parametrize("name", ["hrbp:rows=32,channels=16", "hrbp++:rows=32,channels=16,taps=4"])
def test_masks_of_structures(name: str) -> None:
    """Regrouped outputs, blocks of neighbouring inputs, packed as compress_ does."""
    structure, shape = named(f"{name},inputs=neighbours"), (64, 48, 3, 3)
    score = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    plan, count = structure.plan(score, 0.7), structure.count(shape, 0.7)
    mask = Mask(structure.project(score, count, plan, torch.ones_like(score, dtype=torch.bool)), plan)
    mask = Mask(mask.keep.to(DEVICE), {key: part.to(DEVICE) for key, part in plan.items()})
    packed = pack(score.to(DEVICE), mask, best_layout(mask))
    assert packed.layout == "grouped"
    assert sides(packed) == (32, 16)
    case = Case(shape, size=(1, 4, 5))
    got, wanted = run(case, packed, passes_of(case, packed)), dense(case, packed, torch.float64)
    limit = 1e-3 if DEVICE.type == "cuda" else 1e-6
    for pass_, found in got.items():
        assert float((found.cpu() - wanted[pass_]).abs().max()) <= limit * float(wanted[pass_].abs().max()), pass_


def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, good = KERNELS["blocks-gpu"], Case((128, 64, 3, 3)).packed()
    assert kernel.why_not(good, Conv(1, 1), torch.float32, torch.device("cpu")) == ["it runs on a GPU; got cpu"]
    if DEVICE.type != "cuda":
        assert kernel.why_not(good, Conv(1, 1), torch.float32, GPU) == ["no CUDA device is there"]
    monkeypatch.setattr(toolchain, "why_not_on", lambda device: [])
    assert kernel.why_not(good, Conv(1, 1), torch.bfloat16, GPU) == []
    assert "got float64" in kernel.why_not(good, Conv(1, 1), torch.float64, GPU)[0]
    assert "groups" in kernel.why_not(good, Conv(1, 1, groups=2), torch.float16, GPU)[0]
    narrow = Case((64, 8, 3, 3), (32, 4)).packed()
    assert "this mask has 64 x 4" in kernel.why_not(narrow, Conv(1, 1), torch.float16, GPU)[0]
    csr = pack(torch.randn(64, 64, 1, 1), Mask(torch.rand(64, 64, 1, 1) > 0.5))
    assert kernel.why_not(csr, Conv(), torch.float16, GPU) == ["it reads unit and grouped, not csr"]
