"""What forward does besides calling layers happens at every call of a fused copy, or there is no copy."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fusion_nets import CHANNELS, assert_same, images, sparse_layer, stir_
from torch import Tensor, nn

from campfire import fuse
from campfire.errors import UsageError
from campfire.nn.entrances import open_

HERE = torch.zeros(1)


class State(nn.Module):
    """Two convolutions, buffers, an attribute, and a forward pass of the module and its input."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor]):
        super().__init__()
        self.a, self.b = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.register_buffer("buf", torch.ones(2, CHANNELS, 6, 6))
        self.register_buffer("k", torch.ones(1))
        self.plain = torch.ones(1)
        self.run = [run]

    def forward(self, x: Tensor) -> Tensor:
        return self.run[0](self, x)


def added_to_zeros(n: State, x: Tensor) -> Tensor:
    y = torch.zeros(2, CHANNELS, 6, 6)
    for layer in (n.a, n.b):
        y += layer(x)
    return y


def written_into_zeros(n: State, x: Tensor) -> Tensor:
    y = torch.zeros(2, CHANNELS, 6, 6)
    y[:] = n.a(x)
    return y


def written_into_a_view(n: State, x: Tensor) -> Tensor:
    y = torch.zeros(2, CHANNELS, 6, 6)
    y[:, 0].add_(n.a(x)[:, 0])
    return y + x


def written_through_a_traced_view(n: State, x: Tensor) -> Tensor:
    y = torch.zeros(2, CHANNELS, 6, 6)
    y.view_as(x).add_(n.a(x))
    return y + x


def changed_after_it_was_read(n: State, x: Tensor) -> Tensor:
    y = torch.zeros(1)
    x = x + y
    y.add_(1)
    return x + y


def handed_out(n: State, x: Tensor) -> Tensor:
    return torch.add(x, 1, out=torch.zeros(2, CHANNELS, 6, 6))


def switched(n: State, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        y = n.a(x)
    return y


def switched_off(n: State, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return n.a(x)


def set_anew(n: State, x: Tensor) -> Tensor:
    n.k = n.k + float(n.k)
    return n.a(x) * n.k


WRITES = "may write to a tensor made without the input"
OUTLIVES = "writes to a tensor that outlives the call"
REFUSED: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "added to zeros": (added_to_zeros, WRITES),
    "written into zeros": (written_into_zeros, WRITES),
    "written into a view": (written_into_a_view, WRITES),
    "written through a traced view": (written_through_a_traced_view, WRITES),
    "a method": (lambda n, x: torch.zeros(1).add_(n.a(x).mean()) + x, WRITES),
    "handed out": (handed_out, WRITES),
    "changed after it was read": (changed_after_it_was_read, OUTLIVES),
    "an attribute": (lambda n, x: n.a(x) * n.plain.mul_(2.0), OUTLIVES),
    "an attribute, by the input": (lambda n, x: n.a(x) * n.plain.add_(x.mean()), WRITES),
    "a tensor of the program's": (lambda n, x: n.a(x) + HERE.add_(1), OUTLIVES),
    "a buffer that decides": (lambda n, x: n.a(x) * float(n.k.mul_(2.0)), OUTLIVES),
    "a buffer set anew": (set_anew, "it sets its buffer k anew"),
    "random numbers": (lambda n, x: n.a(x) + torch.rand(1), "it draws random numbers"),
    "autocast": (switched, "switches autocast"),
    "autocast off": (switched_off, "switches autocast"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_happen_once_is_refused_and_runs_as_it_is_inside(name: str) -> None:
    run, why = REFUSED[name]
    net, x = stir_(State(run)).eval(), images()
    with pytest.raises(UsageError, match=why) as caught:
        fuse(net)
    assert "Cure: fuse the parts that do" in str(caught.value)
    HERE.zero_()
    fused = fuse(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.BatchNorm2d(CHANNELS), nn.Sequential(net)))
    assert why in fused.report.opaque["2.0"]
    assert list(fused.report.opaque) == ["2.0"], "the module around it is traced"
    assert fused.report.folded == {"1": "0"}
    inside, alone = fused.get_submodule("2.0"), copy.deepcopy(net)
    for _ in range(3):
        HERE.zero_()
        torch.manual_seed(0)
        got = inside(x)
        HERE.zero_()
        torch.manual_seed(0)
        want = alone(x)
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


def count(n: State, x: Tensor) -> Tensor:
    n.k.mul_(2.0)
    return n.norm(n.a(x)) * n.k


def into_a_copy(n: State, x: Tensor) -> Tensor:
    y = n.buf.clone()
    y += n.a(x)
    return n.norm(n.b(y))


def own_statistics(n: State, x: Tensor) -> Tensor:
    n.norm.running_mean.add_(1.0)
    return n.norm(n.a(x))


def made_and_only_read(n: State, x: Tensor) -> Tensor:
    mean = torch.zeros(1)
    mean[0] = 0.5
    x = (x - mean) / torch.tensor([2.0])
    x += 1
    return n.norm(n.a(x))


ALLOWED: dict[str, tuple[Callable[[Any, Tensor], Tensor], int]] = {
    "a counting buffer": (count, 1),
    "a buffer's copy": (into_a_copy, 1),
    "statistics that it changes": (own_statistics, 0),
    "made and only read": (made_and_only_read, 1),
    "steps by a buffer": (lambda n, x: n.norm(n.a(x)) * float(n.k) if n.k > 0 else x, 1),
    "as many as a buffer has": (lambda n, x: n.norm(n.a(x)) * len(range(n.buf.shape[1])), 1),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_buffers_are_read_and_written_at_every_call(name: str) -> None:
    run, folded = ALLOWED[name]
    net, x = stir_(State(run)).eval(), images()
    before, fused = copy.deepcopy(net.state_dict()), fuse(net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert len(fused.report.folded) == folded
    assert not fused.report.opaque
    again = pickle.loads(pickle.dumps(fused))
    with torch.no_grad():
        for _ in range(3):
            want = net(x)
            torch.testing.assert_close(fused(x), want, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(again(x), want, rtol=1e-4, atol=1e-4)


def test_a_parameter_that_an_untraceable_part_read_first() -> None:
    shared = nn.Parameter(torch.tensor(3.0))

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = shared

        def forward(self, x: Tensor) -> Tensor:
            y = x * self.w
            return y if y.sum() > 0 else y + 1

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.w = Reads(), shared

        def forward(self, x: Tensor) -> Tensor:
            return self.part(x) * self.w

    assert list(assert_same(Both(), images()).report.opaque) == ["part"]


def hooked(net: nn.Module) -> None:
    net.register_forward_hook(lambda module, given, made: 2 * made)


def hooked_before(net: nn.Module) -> None:
    net.register_forward_pre_hook(lambda module, given: (2 * given[0],))


def replaced(net: nn.Module) -> None:
    net.forward = lambda x: x


@pytest.mark.parametrize(
    ("change", "why"), [(hooked, "has hooks"), (hooked_before, "has hooks"), (replaced, "was replaced on the instance")]
)
def test_the_outermost_module_is_called_past_its_hooks(change: Callable[[nn.Module], None], why: str) -> None:
    net = nn.Sequential(nn.Conv2d(CHANNELS, 4, 1), nn.BatchNorm2d(4))
    change(net)
    with pytest.raises(UsageError, match=why) as caught:
        fuse(net)
    assert "Cure: " in str(caught.value)


def test_hooks_of_modules_with_children_run_at_every_call() -> None:
    seen: list[Tensor] = []
    inner = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.BatchNorm2d(CHANNELS))
    inner.register_forward_hook(lambda module, given, made: seen.append(made))
    fused = assert_same(nn.Sequential(stir_(inner)), images())
    assert fused.report.opaque == {"0": "there are hooks"}
    assert all(isinstance(one, Tensor) for one in seen)


def test_an_entrance_of_the_outermost_module_stays() -> None:
    net = nn.Sequential(nn.ReLU(), nn.ReLU())
    open_(net, {"": "chwn"}, torch.float32)
    fused = assert_same(net, images())
    assert fused(images()).stride() == net.eval()(images()).stride() != images().stride()


class Doubling(nn.Identity):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * input if input.sum() > -1e9 else input


class Tripling(nn.Dropout2d):
    def forward(self, input: Tensor) -> Tensor:
        return 3 * input if input.sum() > -1e9 else input


def test_subclasses_of_what_does_nothing_stay() -> None:
    net = stir_(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), Doubling(), Tripling(), nn.BatchNorm2d(CHANNELS)))
    assert list(assert_same(net, images()).report.opaque) == ["1", "2"]


def test_subclasses_of_sparse_layers_take_nothing_over() -> None:
    sparse = sparse_layer(nn.Conv2d(CHANNELS, CHANNELS, 1))

    class Doubled(type(sparse)):  # pyright: ignore[reportGeneralTypeIssues]
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return 2 * y if y.sum() > -1e9 else y

    sparse.__class__ = Doubled
    report = assert_same(nn.Sequential(sparse, nn.ReLU()), images()).report
    assert list(report.opaque) == ["0"]
    assert not report.relus
