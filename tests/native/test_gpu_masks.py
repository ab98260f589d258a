"""Masks by Triton equal those of the CPU bit for bit; without a GPU its interpreter runs the same kernels."""

import pytest
import torch
from gpu_device import by_triton
from hypothesis import given, settings
from native_cases import UGLY, rows, scores
from torch import Tensor

from campfire.errors import CampfireError, NoNative
from campfire.native.compilers import BuildFailed
from campfire.native.gpu import masks as gpu
from campfire.native.gpu import serving
from campfire.selection import Part, _keep_best, keep_best, keep_best_rows, keep_best_runs, ranks, unhurried

pytest.importorskip("triton")
Case = tuple[Tensor, int, Tensor | None]


def there(x: Tensor | None, device: torch.device) -> Tensor | None:
    return None if x is None else x.to(device)


def outcome(score: Tensor, count: int, alive: Tensor | None) -> Tensor | str:
    try:
        return keep_best(score, count, alive).cpu()
    except CampfireError as error:
        return str(error)


def same(a: Tensor | str, b: Tensor | str) -> bool:
    return a == b if isinstance(a, str) or isinstance(b, str) else torch.equal(a, b)


@settings(max_examples=12)
@given(scores(UGLY))
def test_the_best(case: Case) -> None:
    score, count, alive = case
    wanted = outcome(*case)
    with by_triton() as device:
        assert same(outcome(score.to(device), count, there(alive, device)), wanted)
    keep, refused = _keep_best(*case)  # the torch that stands in for Triton
    assert bool(refused) == isinstance(wanted, str)
    assert isinstance(wanted, str) or torch.equal(keep, wanted)


@pytest.mark.parametrize("kind", ["normal", "few values", "one value"])
def test_the_best_of_several_chunks(kind: str) -> None:
    n = 2 * gpu.CHUNK + 77
    normal = torch.randn(n, generator=torch.Generator().manual_seed(n)).abs()
    score = {"normal": normal, "few values": (normal * 2).round() / 2, "one value": torch.ones(n)}[kind]
    alive = normal.flip(0) > 0.3
    for count in (n // 3, int(alive.sum()) - 1):
        wanted = keep_best(score, count, alive)
        with by_triton() as device:
            assert torch.equal(keep_best(score.to(device), count, alive.to(device)).cpu(), wanted)
        assert torch.equal(_keep_best(score, count, alive)[0], wanted)


@settings(max_examples=12)
@given(rows())
def test_rows(case: Case) -> None:
    score, count, alive = case
    wanted = keep_best_rows(*case), ranks(score)
    with by_triton() as device:
        assert torch.equal(keep_best_rows(score.to(device), count, there(alive, device)).cpu(), wanted[0])
        assert torch.equal(ranks(score.to(device)).cpu(), wanted[1])


SHAPES = [(16, 8, 3, 3), (64, 72, 1, 1), (4, 3, 7, 7), (5, 7, 3, 2)]


def layers(last: bool) -> list[tuple[Tensor, Tensor, int]]:
    """Weights in one memory format with ties, who lives, and a number of kernels to keep."""
    generator, found = torch.Generator().manual_seed(0), []
    for shape in SHAPES:
        weight = (torch.randn(shape, generator=generator) * 8).round() / 8
        weight = weight.contiguous(memory_format=torch.channels_last) if last else weight
        kernels = torch.rand(shape[0] * shape[1], generator=generator) < 0.7
        alive = kernels.view(*shape[:2], 1, 1).expand(shape).contiguous()
        found.append((weight, alive, int(kernels.sum()) // 2))
    return found


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("before", [False, True], ids=["first", "later"])
def test_many_layers_at_once(last: bool, before: bool) -> None:
    found = layers(last)
    kernels = [
        keep_best(w.abs().amax((2, 3)).flatten(), n, a[:, :, 0, 0].flatten() if before else None) for w, a, n in found
    ]
    wanted = [k.view(*w.shape[:2], 1, 1).expand(w.shape) for k, (w, _, _) in zip(kernels, found, strict=True)]
    taps = [w.shape[2] * w.shape[3] for w, _, _ in found]
    with by_triton() as device:
        parts = [
            Part(w.to(device), a.to(device) if before else None, n * t, t)
            for (w, a, n), t in zip(found, taps, strict=True)
        ]
        keeps = keep_best_runs(parts)
        single = keep_best_runs([Part(w.to(device), a.to(device), n) for w, a, n in found])
    assert keeps is not None
    assert all(torch.equal(a.cpu(), b) for a, b in zip(keeps, wanted, strict=True))
    assert single is not None
    for keep, (w, a, n) in zip(single, found, strict=True):
        assert torch.equal(keep.cpu().flatten(), keep_best(w.abs().flatten(), n, a.flatten()))


def test_refusals_can_wait() -> None:
    nan = torch.full((4, 3, 3, 3), torch.nan)
    with by_triton() as device:
        for count, alive, reason in ((5, torch.arange(9) < 4, "cannot keep 5 of 4"), (4, None, "NaN")):
            score = torch.rand(9) if alive is not None else nan.flatten()
            with pytest.raises(CampfireError, match=reason):
                keep_best(score.to(device), count, there(alive, device))
        with unhurried() as refused:
            keep_best_runs([Part(torch.rand(4, 3, 3, 3).to(device), None, 9, 9), Part(nan.to(device), None, 9, 9)])
    assert [bool(x) for x in torch.cat(refused)] == [False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_multiplication(dtype: torch.dtype) -> None:
    work, wanted = [], []
    with by_triton() as device:
        for weight, alive, n in [*layers(False), *layers(True)]:
            tensors = [(weight * (i + 1)).to(device, dtype) for i in range(n % 3 + 1)]
            tensors[0][0, 0, 0, 0] = torch.nan
            keep = alive.to(device)
            wanted += [x * keep for x in tensors]
            work.append((keep, tensors))
        multiply = gpu.multiplication(work)
        assert multiply is not None
        multiply()
    got = [x for _, xs in work for x in xs]
    for x, y in zip(got, wanted, strict=True):
        assert torch.equal(x.isnan(), y.isnan())
        assert torch.equal(_bits(x), _bits(y))


def _bits(x: Tensor) -> Tensor:
    """They tell -0 from 0; which NaN it is does not matter."""
    return x.nan_to_num(7.0).contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int16)


def test_what_fails_is_told_once_and_torch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no C compiler")

    score = torch.rand(50)
    with by_triton() as device, monkeypatch.context() as patch:
        patch.setattr(gpu, "_launch", broken)
        with pytest.raises(BuildFailed, match="no C compiler"):
            keep_best(score.to(device), 7)
        patch.setenv("CAMPFIRE_NATIVE", "1")
        patch.setattr("campfire.native.loading._warned", set())
        patch.setattr("campfire.native.gpu.trouble._told", set())
        with pytest.warns(
            NoNative, match="torch and the dense library do their work, slower: RuntimeError: no C compiler"
        ):
            keep = keep_best(score.to(device), 7)
        assert torch.equal(keep.cpu(), _keep_best(score, 7, None)[0])
        assert not serving.serves(device)
