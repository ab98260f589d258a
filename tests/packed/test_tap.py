import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from campfire.errors import CheckpointError, DoesNotFit
from campfire.mask import Mask
from campfire.packed import LAYOUTS, Packed, pack
from campfire.packed import tap as module
from campfire.structures import named
from campfire.testing import masks

SHAPE = (8, 4, 3, 3)


def example() -> tuple[Tensor, Mask, Packed]:
    mask = dict(masks(SHAPE, 0.7))["patterns"]
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return weight, mask, pack(weight, mask, "tap")


def test_values_lie_kernel_by_kernel_taps_rising() -> None:
    weight, mask, packed = example()
    assert torch.equal(packed.parts["value"][:, 0], weight[mask.keep])
    living = mask.keep.flatten(2).any(2).flatten().nonzero()[:, 0]
    assert packed.parts["kernel"].tolist() == living.tolist()
    taps = packed.parts["book"][packed.parts["pattern"].long()]
    assert torch.equal(taps, mask.keep.flatten(2).flatten(0, 1)[living])


@given(st.integers(1, 9), st.integers(1, 40), st.floats(0, 1), st.integers(0, 999))
def test_a_book_holds_each_pattern_once_first_taps_first(kernels: int, taps: int, density: float, seed: int) -> None:
    rows = torch.rand(kernels, taps, generator=torch.Generator().manual_seed(seed)) < density
    rows = rows[torch.randint(kernels, (20,), generator=torch.Generator().manual_seed(seed))]
    book, pattern = module._book(rows)
    assert torch.equal(book[pattern], rows)
    assert [tuple(row) for row in book.int().tolist()] == sorted(set(map(tuple, rows.int().tolist())), reverse=True)


def test_many_patterns_take_int16_ids() -> None:
    keep = (torch.arange(1, 301)[:, None] >> torch.arange(9) & 1).bool().view(300, 1, 3, 3)
    weight = torch.randn(keep.shape)
    packed = pack(weight, Mask(keep), "tap")
    assert packed.parts["pattern"].dtype == torch.int16
    assert len(packed.parts["book"]) == 300
    assert torch.equal(packed.dense(), weight * keep)
    parts = {**packed.parts, "pattern": packed.parts["pattern"].clone()}
    parts["pattern"][0] = -1
    assert "pattern lies outside [0, 300)" in LAYOUTS["tap"].why_invalid(Packed("tap", packed.shape, parts))[0]


def test_more_patterns_than_ids_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, mask, _ = example()
    monkeypatch.setattr(module, "MOST", 3)
    with pytest.raises(DoesNotFit, match="4 patterns of taps; a book has 3 at most"):
        pack(weight, mask, "tap")


@pytest.mark.parametrize(("structure", "patterns"), [("window", 36), ("ck", 1)])
def test_patterns_of_structures(structure: str, patterns: int) -> None:
    made, shape = named(structure), (32, 16, 3, 3)
    score = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    keep = made.project(score, made.count(shape, 7 / 9), {}, torch.ones(shape, dtype=torch.bool))
    assert len(pack(score, Mask(keep), "tap").parts["book"]) == patterns


def swap_rows(parts: dict[str, Tensor], row: Tensor) -> dict[str, Tensor]:
    return {**parts, "book": torch.cat([row, parts["book"][1:]])}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: {**p, "kernel": p["kernel"] - 1 - p["kernel"][0]}, r"kernel lies outside \[0, 32\)"),
        (lambda p: {**p, "kernel": p["kernel"] + 32}, r"kernel lies outside \[0, 32\)"),
        (lambda p: {**p, "kernel": p["kernel"].flip(0)}, "kernel do not rise"),
        (lambda p: {**p, "kernel": p["kernel"][[0, *range(len(p["kernel"]) - 1)]]}, "kernel do not rise"),
        (lambda p: {**p, "pattern": p["pattern"] + 4}, r"pattern lies outside \[0, 4\)"),
        (lambda p: {**p, "pattern": p["pattern"][1:]}, "kernels has a pattern; got"),
        (lambda p: {**p, "pattern": p["pattern"].int()}, "pattern is uint8 or int16"),
        (lambda p: {**p, "pattern": p["pattern"].clamp(min=1)}, "1 rows of the book are not used"),
        (lambda p: {**p, "book": p["book"][:, 1:]}, "a row of the book has 9 taps; got 8"),
        (lambda p: {**p, "book": p["book"].byte()}, "book is bool"),
        (lambda p: {**p, "book": p["book"][:0]}, "outside"),
        (lambda p: {**p, "book": torch.cat([p["book"], ~p["book"][:1]])}, "1 rows of the book are not used"),
        (lambda p: swap_rows(p, torch.zeros(1, 9, dtype=torch.bool)), "a row of the book is empty"),
        (lambda p: swap_rows(p, p["book"][1:2]), "two rows of the book are equal"),
        (lambda p: {**p, "value": p["value"][:, 0]}, "want a value of shape"),
        (lambda p: {**p, "value": p["value"][1:]}, "want a value of shape"),
        (lambda p: {**p, "more": p["value"]}, "tap has the parts book, kernel, pattern, value"),
    ],
)
def test_hostile_parts_are_refused(change, says: str) -> None:
    _, _, packed = example()
    with pytest.raises(CheckpointError, match=says):
        Packed("tap", SHAPE, change(packed.parts)).dense()
