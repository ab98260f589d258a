"""Choices of kernels: by times that are given, by the cost model, and where something cannot serve."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from campfire.errors import CheckpointError, UnknownName
from campfire.kernels import KERNELS, Conv
from campfire.kernels.choice import PASSES, Choice
from campfire.kernels.cost import estimate
from campfire.kernels.dispatch import SWITCH, cheapest, mode, refusals, untimed
from campfire.kernels.times import Case, Times
from campfire.mask import Mask
from campfire.packed import Packed, pack

CPU = torch.device("cpu")


def tiles(density: float = 0.25, tile: tuple[int, int] = (32, 4), shape=(128, 64, 3, 3)) -> Packed:
    """Every nth tile of a weight lives."""
    k, c = tile
    count = shape[0] // k * (shape[1] // c)
    live = (torch.arange(count) % round(1 / density) == 0).view(shape[0] // k, -1)
    keep = live.repeat_interleave(k, 0).repeat_interleave(c, 1)[:, :, None, None].expand(shape).contiguous()
    return pack(torch.ones(shape), Mask(keep), "unit", tile=(k, c, *shape[2:]))


def case(packed: Packed | None = None, images: int = 16, conv: Conv | None = None) -> Case:
    packed = packed or tiles()
    return Case(packed, conv or Conv(1, 1), (images, packed.shape[1], 14, 14), torch.float32)


def times(**ratios: float) -> Times:
    """The same ratio in every pass; a pass takes 1 ms dense."""
    return Times(dict.fromkeys(PASSES, 1.0), {name: {"reference": 1.0, **ratios} for name in PASSES})


def free(size: tuple[int, ...], dtype: torch.dtype) -> float:
    return 0.0


def test_the_fastest_is_taken_where_it_gains_enough() -> None:
    found = cheapest(case(), times(blocks=2.0, lanes=1.5), "nhwc", free)
    assert found.choice == Choice.of("blocks")
    assert found.cost == pytest.approx(1.5)
    assert found.why_not["d_input"]["lanes"].startswith("1.50 x dense, blocks 2.00")
    at_the_edge = times(blocks=SWITCH - 0.01)
    at_the_edge.ratios["d_values"]["blocks"] = SWITCH
    found = cheapest(case(), at_the_edge, "nhwc", free)
    assert found.choice.kernels == ("reference", "reference", "blocks")
    assert found.why_not["forward"]["blocks"] == "1.09 x dense, less than 1.10"


def test_conversions_are_part_of_a_kernel() -> None:
    def dear(size: tuple[int, ...], dtype: torch.dtype) -> float:
        return 0.3

    fast = times(lanes=2.0)
    assert cheapest(case(), fast, "nhwc", dear).choice == Choice()
    inside = cheapest(case(), fast, "chwn", dear)
    assert inside.choice == Choice.of("lanes")
    assert inside.cost == pytest.approx(1.5)
    assert cheapest(case(), fast, "nhwc", free).choice.format == "nhwc"


def test_only_what_will_run_counts() -> None:
    found = cheapest(case(), times(blocks=2.0), "nhwc", free, ["forward"])
    assert found.cost == pytest.approx(0.5)
    assert found.choice == Choice.of("blocks")


@given(st.dictionaries(st.sampled_from(["blocks", "lanes"]), st.floats(0.1, 10)), st.floats(0, 3))
def test_never_dearer_than_dense(ratios: dict[str, float], move: float) -> None:
    given = times(**ratios)
    for format in ("nhwc", "chwn"):
        found = cheapest(case(), given, format, lambda size, dtype: move)
        alone = Times(given.dense, {name: {"reference": 1.0} for name in PASSES})
        assert found.cost <= cheapest(case(), alone, format, lambda size, dtype: move).cost + 1e-9


def test_the_model_follows_density_and_size() -> None:
    gains = [estimate(case(tiles(d)), ["blocks"]).ratios["forward"]["blocks"] for d in (0.125, 0.25, 0.5, 1.0)]
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] < 1
    thin = estimate(case(tiles(0.25, (32, 1))), ["blocks"]).ratios["d_input"]["blocks"]
    assert thin < estimate(case(), ["blocks"]).ratios["d_input"]["blocks"]
    assert estimate(case(images=1), ["reference"]).ratios["forward"]["reference"] < 0.95, "unpacking shows"
    assert estimate(case(), ["blocks"]) == estimate(case(), ["blocks"])


def test_reasons_of_what_is_not_served() -> None:
    for conv, dtype, word in (
        (Conv(1, 2, 2), torch.float32, "dilation"),
        (Conv(1, 1, 1, 2), torch.float32, "groups"),
        (Conv(1, 1), torch.float16, "float16"),
    ):
        told = refusals(tiles(), conv, dtype, CPU)
        assert set(told) == set(KERNELS) - {"reference"}
        assert any(word in reason for reason in told["blocks"])
        assert "blocks" not in untimed(tiles(), conv, dtype).kernels


def test_without_times_only_neighbours_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    csr = pack(torch.ones(32, 32, 3, 3), Mask(torch.rand(32, 32, 3, 3) < 0.1))
    assert untimed(csr, Conv(1, 1), torch.float32).format == "nhwc"
    served = not KERNELS["blocks"].why_not(tiles(), Conv(1, 1), torch.float32, CPU)
    assert (untimed(tiles(), Conv(1, 1), torch.float32) == Choice.of("blocks")) == served
    assert untimed(tiles(1.0), Conv(1, 1), torch.float32).dense, "nothing to gain"
    monkeypatch.setenv("CAMPFIRE_DISPATCH", "off")
    assert untimed(tiles(), Conv(1, 1), torch.float32).dense
    monkeypatch.setenv("CAMPFIRE_DISPATCH", "sometimes")
    with pytest.raises(UnknownName, match="CAMPFIRE_DISPATCH"):
        mode()


def test_choices_are_plain_data() -> None:
    choice = Choice("blocks", "reference", "lanes", "chwn")
    assert Choice.from_dict(choice.to_dict()) == choice == pickle.loads(pickle.dumps(choice))
    assert str(choice) == "blocks/reference/lanes in chwn"
    for bad in ({}, {"forward": "blocks"}, {**choice.to_dict(), "format": 3}, "blocks"):
        with pytest.raises(CheckpointError, match="choice"):
            Choice.from_dict(bad)  # pyright: ignore[reportArgumentType]
    for bad in (Choice("blok"), Choice(format="nchw")):
        with pytest.raises(UnknownName):
            bad.why_not(tiles(), Conv(1, 1), torch.float32, CPU)
