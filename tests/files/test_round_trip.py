"""load(save(x)) is x, bit for bit, for every structure, layout and dtype."""

import itertools
import stat
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from file_models import ODD, net, plus_zero, pruned, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import campfire
from campfire.errors import CampfireError
from campfire.files.coded import decode
from campfire.files.encoding import encode, unit_of
from campfire.files.loading import from_bytes, read
from campfire.files.saving import Claim, to_bytes
from campfire.mask import Mask
from campfire.nn import SparseConv2d
from campfire.packed import LAYOUTS
from campfire.quantise import named
from campfire.structures import REGISTRY
from campfire.testing import masks

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
sizes = st.tuples(st.integers(1, 40), st.integers(1, 12), st.sampled_from([1, 2, 3]), st.sampled_from([1, 3]))


def odd(shape: tuple[int, ...], dtype: torch.dtype, keep: Tensor, seed: int) -> Tensor:
    """Random weights with the oddest numbers there are among the living, +0 among the dead."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    info = torch.finfo(dtype)
    living = keep.flatten().nonzero()[:6, 0]
    weight.view(-1)[living] = torch.tensor([*ODD, info.tiny / 2, -info.tiny / 4], dtype=dtype)[: len(living)]
    return weight.masked_fill(~keep, 0)


@given(
    shape=sizes,
    sparsity=st.floats(0, 1),
    kind=st.integers(0, 99),
    seed=st.integers(0, 999),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=150)
def test_every_kind_of_mask_and_dtype(shape, sparsity: float, kind: int, seed: int, dtype: torch.dtype) -> None:
    drawn = list(masks(shape, sparsity, seed))
    mask = drawn[kind % len(drawn)][1]
    state = {"a.weight": odd(shape, dtype, mask.keep, seed), "b": torch.arange(3), "c": torch.tensor(1.5)}
    loaded = from_bytes(to_bytes(state, {"a.weight": Claim(mask)})[0])
    assert same_bits(loaded.state, state)
    assert torch.equal(loaded.masks["a.weight"].keep, mask.keep)


@pytest.mark.parametrize("structure", [*sorted(REGISTRY), "2:4", "window:mode=mixed", "combined:literal=true"])
def test_every_structure(structure: str, tmp_path: Path) -> None:
    spelled = campfire.named(structure)
    shape = (64, 32, 1, 1) if spelled.scope == "linear" else (64, 32, 3, 3)
    score = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    plan = spelled.plan(score, 0.7)
    keep = spelled.project(score, spelled.count(shape, 0.7), plan, torch.ones(shape, dtype=torch.bool))
    for dtype in DTYPES:
        state = {"w": odd(shape, dtype, keep, 0)}
        data, sizes = to_bytes(state, {"w": Claim(Mask(keep, plan), str(spelled))})
        loaded = from_bytes(data)
        assert same_bits(loaded.state, state)
        assert loaded.structures == {"w": str(spelled)}
        assert sizes.to_dict() == loaded.sizes.to_dict()
        assert sizes.total == len(data)


@pytest.mark.parametrize(("layout", "linear"), list(itertools.product(sorted(LAYOUTS), [False, True])))
def test_compressed_layers_of_every_layout(layout: str, linear: bool, tmp_path: Path) -> None:
    layer = nn.Linear(32, 64) if linear else nn.Conv2d(32, 64, 3)
    shape = (64, 32, 1, 1) if linear else (64, 32, 3, 3)
    mask = next(m for _, m in masks(shape, 0.7) if not LAYOUTS[layout].why_not(m))
    kind = campfire.SparseLinear if linear else SparseConv2d
    model = nn.Sequential(kind.of(layer, mask, layout))
    campfire.save(tmp_path / "x.campfire", model)
    assert same_bits(campfire.load(tmp_path / "x.campfire"), dict(model.state_dict()))
    other = nn.Sequential(nn.Linear(32, 64) if linear else nn.Conv2d(32, 64, 3))
    report = campfire.load_(other, tmp_path / "x.campfire")
    assert report.compressed == ["0"]
    assert same_bits(dict(other.state_dict()), dict(model.state_dict()))
    assert torch.equal(other[0].mask.keep, mask.keep)


@given(
    size=st.integers(1, 400), density=st.floats(0, 1), unit=st.tuples(*[st.integers(1, 5)] * 4), seed=st.integers(0, 99)
)
@settings(max_examples=100)
def test_masks_with_edges(size: int, density: float, unit: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 12, 4))
    keep = rng.random(tuple(-(-n // u) for n, u in zip(shape, unit, strict=True))) < density
    for axis, (n, u) in enumerate(zip(shape, unit, strict=True)):
        keep = np.repeat(keep, u, axis).take(range(n), axis)
    coded = encode(keep)
    assert np.array_equal(decode(coded, int(keep.sum())), keep)
    for n, u, found in zip(shape, unit, unit_of(keep), strict=True):
        assert found >= min(n, u)


def test_a_pruned_model(tmp_path: Path) -> None:
    model, pruner = pruned()
    sizes = campfire.save(tmp_path / "x.campfire", model, pruner)
    loaded = read(tmp_path / "x.campfire")
    keeps = {f"{n}.weight": mask.keep for n, mask in pruner.masks.items()}
    assert same_bits(loaded.state, plus_zero(dict(model.state_dict()), keeps))
    assert loaded.structures == dict.fromkeys(keeps, "ck")
    assert {n: m.checksum() for n, m in loaded.masks.items()} == {n: Mask(k).checksum() for n, k in keeps.items()}
    assert sizes.total == (tmp_path / "x.campfire").stat().st_size
    assert "3.weight" in str(sizes)


def test_a_model_that_trains_on_from_a_file(tmp_path: Path) -> None:
    model, pruner = pruned("tiles:rows=16")
    campfire.save(tmp_path / "x.campfire", model, pruner)
    other = net()
    report = campfire.load_(other, tmp_path / "x.campfire")
    assert report.compressed == ["3", "4"]
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(other.eval()(x), model.eval()(x), atol=1e-4)
    other(x).mean().backward()
    assert other[3].value.grad is not None
    dense = net()
    assert campfire.load_(dense, tmp_path / "x.campfire", sparse=False).layers == []
    assert torch.equal(dense.eval()(x), model(x))


def test_weights_that_are_no_layers_own(tmp_path: Path) -> None:
    """One matrix for three projections, and one computed from two."""
    model = nn.ModuleDict(
        {"mha": nn.MultiheadAttention(16, 2), "wn": nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))}
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(-1)[::2] = 0
    campfire.save(tmp_path / "x.campfire", model)
    other = nn.ModuleDict(
        {"mha": nn.MultiheadAttention(16, 2), "wn": nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))}
    )
    report = campfire.load_(other, tmp_path / "x.campfire")
    assert same_bits(other.state_dict(), model.state_dict())
    reasons = {row.name: row.reason for row in report.layers}
    assert reasons["mha.in_proj_weight"] == "it is 'in_proj_weight' of a MultiheadAttention, which has no sparse form"
    assert "'original1' of a" in str(reasons["wn.parametrizations.weight.original1"])


def test_a_compressed_model_keeps_its_claims(tmp_path: Path) -> None:
    model, pruner = pruned("hrbp:rows=16,channels=2")
    before = plus_zero(dict(model.state_dict()), {f"{n}.weight": m.keep for n, m in pruner.masks.items()})
    campfire.compress_(model, pruner)
    campfire.save(tmp_path / "x.campfire", model, pruner)
    loaded = read(tmp_path / "x.campfire")
    assert same_bits(loaded.state, before)
    assert set(loaded.structures.values()) == {"hrbp:rows=16,channels=2"}
    assert campfire.load_(net(), tmp_path / "x.campfire").layers[0].layout == "grouped"


def test_a_plain_state_dict_is_stored_by_its_zeros(tmp_path: Path) -> None:
    weight = torch.randn(64, 64)
    weight[torch.rand(64, 64) < 0.7] = -0.0
    state = {"w": weight, "dense": torch.randn(4, 4), "few": torch.eye(2), "steps": torch.tensor(3)}
    sizes = campfire.save(tmp_path / "x.campfire", state)
    assert [row.name for row in sizes.layers] == ["few", "w"] or [row.name for row in sizes.layers] == ["w", "few"]
    loaded = campfire.load(tmp_path / "x.campfire")
    assert same_bits(loaded, plus_zero(state, {"w": weight != 0}))


@pytest.mark.parametrize("values", ["int8", "codebook:2", "codebook:4", "codebook:8"])
def test_values_in_few_bits(values: str, tmp_path: Path) -> None:
    model, pruner = pruned("combined")
    exact = campfire.save(tmp_path / "exact.campfire", model, pruner)
    few = campfire.save(tmp_path / "few.campfire", model, pruner, named(values))
    bits = 8 if values == "int8" else int(values[-1])
    for row, small in zip(exact.layers, few.layers, strict=True):
        assert small.parts["value"] == -(-row.kept * bits // 8)
        assert row.packed - row.values == small.packed - small.values
    state = campfire.load(tmp_path / "few.campfire")
    for name, mask in pruner.masks.items():
        weight = state[f"{name}.weight"]
        assert torch.equal(weight.view(mask.keep.shape) != 0, mask.keep & (weight.view(mask.keep.shape) != 0))
        if values != "int8":
            assert len(weight[weight != 0].unique()) <= 2**bits
    assert state["1.running_mean"].equal(model[1].running_mean)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_bytes_and_dtypes_of_values_in_few_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight[:, ::2] = 0
    for values in ("int8", "codebook:3"):
        sizes = campfire.save(tmp_path / "x.campfire", {"w": weight}, values=named(values))
        assert sizes.dense == weight.numel() * weight.element_size()
        assert sizes.layers[0].csr == 2048 * (4 + weight.element_size()) + 4 * 65
        state, read_sizes = campfire.load(tmp_path / "x.campfire"), read(tmp_path / "x.campfire").sizes
        assert state["w"].dtype == (torch.float32 if values == "int8" else dtype)
        assert read_sizes.dense == weight.numel() * state["w"].element_size()
        assert not state["w"][weight == 0].any()
        lost = (state["w"].double() - weight.double()).norm() / weight.double().norm()
        assert lost < (0.01 if values == "int8" else 0.3)
        model = nn.ModuleDict({"l": nn.Linear(64, 64, bias=False).to(dtype)})
        campfire.save(tmp_path / "y.campfire", {"l.weight": weight}, values=named(values))
        campfire.load_(model, tmp_path / "y.campfire")
        assert (model["l"].weight.dtype, model["l"].value.numel()) == (dtype, 2048)


def test_a_codebook_of_few_values_keeps_them_exactly_in_any_dtype(tmp_path: Path) -> None:
    for dtype in DTYPES:
        weight = torch.tensor([-0.5, 0.0, 0.3, 1.7]).to(dtype)[torch.arange(4096) % 4].view(64, 64)
        campfire.save(tmp_path / "x.campfire", {"w": weight}, values=named("codebook:2"))
        same = campfire.load(tmp_path / "x.campfire")["w"]
        assert torch.equal(same, weight.float().to(dtype))


def test_other_libraries_read_the_container(tmp_path: Path) -> None:
    model, pruner = pruned()
    campfire.save(tmp_path / "x.campfire", model, pruner)
    with safetensors.safe_open(tmp_path / "x.campfire", "pt") as file:
        assert torch.equal(file.get_tensor("0.weight"), model[0].weight)
        assert file.get_tensor("3.weight:value").numel() == int(pruner.masks["3"].keep.sum())


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "x.campfire"
    campfire.save(path, {"w": torch.eye(8)})
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_wrapped_and_channels_last_models(tmp_path: Path) -> None:
    model, pruner = pruned()
    campfire.save(tmp_path / "a.campfire", model, pruner)
    model.to(memory_format=torch.channels_last)
    campfire.save(tmp_path / "b.campfire", torch.nn.DataParallel(model), pruner)
    assert (tmp_path / "a.campfire").read_bytes() == (tmp_path / "b.campfire").read_bytes()


def test_tied_weights_are_stored_under_both_names(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    campfire.save(tmp_path / "x.campfire", model)
    assert same_bits(campfire.load(tmp_path / "x.campfire"), dict(model.state_dict()))


def test_a_mask_that_is_not_of_its_structure_is_not_written(tmp_path: Path) -> None:
    model, pruner = pruned()
    layer = pruner.layers["3"]
    keep = layer.keep.clone()
    keep[0, 0] = torch.tensor([True] + [False] * 8).view(3, 3)
    with torch.no_grad():
        model[3].weight[0, 0] = 0
    layer.mask = Mask(keep)
    with pytest.raises(CampfireError, match=r"the mask of '3.weight' is no 'ck': some units .* are half alive"):
        campfire.save(tmp_path / "x.campfire", model, pruner)
    assert not list(tmp_path.iterdir())


def test_a_layer_that_begins_at_zero_is_not_taken_for_a_pruned_one(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
        model[1].weight.zero_()
    campfire.save(tmp_path / "x.campfire", model)
    again = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    assert campfire.load_(again, tmp_path / "x.campfire").compressed == ["0"]
    mask = Mask(torch.zeros(16, 16, 1, 1, dtype=torch.bool))  # as files of before, or of others, may say
    (tmp_path / "y.campfire").write_bytes(to_bytes(model.state_dict(), {"1.weight": Claim(mask)})[0])
    again = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    report = campfire.load_(again, tmp_path / "y.campfire")
    assert (report.compressed, report.layers[0].reason) == ([], "nothing in it lives, so it could learn nothing")


def test_what_was_loaded_is_counted_and_needs_an_optimizer(tmp_path: Path) -> None:
    model, pruner = pruned()
    campfire.save(tmp_path / "x.campfire", model, pruner)
    report = campfire.load_(net(), tmp_path / "x.campfire")
    kept = sum(int(mask.keep.sum()) for mask in pruner.masks.values())
    assert (report.before > report.after, report.after) == (True, 4 * kept)
    assert str(report).endswith("no optimizer that was made before holds these values: to train on, make it now")
