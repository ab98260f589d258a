"""tune_: what is chosen from times that are given; the model that is tuned stays as it was."""

import copy
import pickle
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from compress_cases import frozen, train
from torch import nn

from campfire import compress_, decompress_, tune_
from campfire.compress import Plan, tuning
from campfire.compress.recording import record
from campfire.errors import CheckpointError, UnknownName, UsageError
from campfire.kernels import KERNELS, Conv
from campfire.kernels.base import Kernel
from campfire.kernels.choice import PASSES, Choice
from campfire.kernels.reference import Dense
from campfire.kernels.times import Case, Times
from campfire.mask import Mask
from campfire.nn import BatchNorm2d, SparseConv2d, SparseLinear
from campfire.nn.entrances import entrances
from campfire.packed import Packed


class Same(Kernel):
    """Computes what the reference computes, in the other format; not registered by its name."""

    format = "chwn"
    layouts = ("csr", "unit")

    def prepare(self, packed: Packed, conv: Conv) -> Dense:
        return Dense(packed, conv)


class Near(Same):
    format = "nhwc"


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two kernels that serve everywhere, whatever this machine has; the whole model is not timed."""
    monkeypatch.setattr(tuning, "race", lambda *_: None)
    usual = dict(KERNELS)
    replace_kernels({"reference": usual["reference"], "far": Same(), "near": Near()})
    yield
    monkeypatch.undo()  # else it would bring back what it replaced
    replace_kernels(usual)


def replace_kernels(others: dict[str, Kernel]) -> None:
    """In this order, which decides where nobody chose."""
    KERNELS.clear()
    KERNELS.update(others)


def clock(monkeypatch: pytest.MonkeyPatch, move: float = 0.0, **ratios: dict[int, float] | float) -> list[Case]:
    """Times of 1 ms a pass, ratios by kernel (or by its outputs), ``move`` ms a conversion; the cases that were timed."""
    timed: list[Case] = []

    def measure(case: Case, kernels: Sequence[str], passes: Sequence[str] = PASSES) -> Times:
        timed.append(case)
        found = {"reference": 1.0}
        for kernel in set(kernels) - {"reference"}:
            given = ratios.get(kernel, 0.5)
            found[kernel] = given.get(case.packed.shape[0], 0.5) if isinstance(given, dict) else given
        return Times(dict.fromkeys(passes, 1.0), {name: dict(found) for name in passes})

    monkeypatch.setitem(tuning.CLOCKS, "measure", (measure, lambda size, dtype: move))
    return timed


def chain(*outputs: int) -> nn.Sequential:
    """Sparse 1x1 convolutions between batch normalisations, the first on 4 channels."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, out in zip((4, *outputs), outputs, strict=False):
        keep = torch.rand(out, inputs, 1, 1) < 0.5
        layers += [SparseConv2d.of(nn.Conv2d(inputs, out, 1), Mask(keep)), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers)


def images(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def formats(plan: Plan) -> list[str]:
    return [layer.format for layer in plan.layers]


def test_formats_change_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain(8, 8, 16, 4)
    fast = {8: 10.0, 16: 10.0}
    clock(monkeypatch, move=0.05, far=fast)
    plan = tune_(model, images())
    assert formats(plan) == ["chwn", "chwn", "chwn", "nhwc"]
    assert plan.layers[0].choice == model[0].choice() == Choice("far", "far", "far", "chwn")
    assert model[9].choice().dense
    assert plan.ms == pytest.approx(3 * 0.3 + 3 + 4 * 0.05)
    assert plan.dense_ms == 12
    clock(monkeypatch, move=10.0, far=fast)
    assert formats(tune_(model, images())) == ["nhwc"] * 4
    clock(monkeypatch, move=1.0, far=fast)  # in and out, forward and backward: 4 ms for what gains 8.1
    plan = tune_(model, images())
    assert formats(plan) == ["chwn", "chwn", "chwn", "nhwc"]
    assert plan.ms == pytest.approx(3 * 0.3 + 3 + 4)
    plan = tune_(model, images(), training=False)  # 2 ms for what gains 2.7
    assert plan.ms == pytest.approx(3 * 0.1 + 1 + 2)


def test_layers_between_keep_the_format_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain(8, 4)
    expected = model(images())
    clock(monkeypatch, move=0.05, far=9.0)
    tune_(model, images())
    assert type(model[1]) is BatchNorm2d
    torch.testing.assert_close(model(images()), expected)
    model(images()).sum().backward()
    decompress_(model)
    assert [type(m) for m in model] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
    assert type(model[1]).__module__.startswith("torch.nn")


def test_all_dense_where_nothing_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, far=1.09, near=1.05)
    model = chain(8, 4)
    plan = tune_(model, images())
    assert all(layer.choice.dense for layer in plan.layers)
    assert plan.ms == plan.dense_ms
    assert type(model[1]) is nn.BatchNorm2d
    told = plan.layers[0].passes["forward"].why_not
    assert told["near"] == "1.05 x dense, less than 1.10"
    assert "0 of 2" not in str(plan) or "2 dense" in str(plan)


def test_a_detour_must_pay_for_what_nobody_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, far=2.1, near=2.0)
    assert formats(tune_(chain(8, 4), images())) == ["nhwc", "nhwc"]


def test_passes_are_chosen_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(case: Case, kernels: Sequence[str], passes: Sequence[str] = PASSES) -> Times:
        return Times(
            dict.fromkeys(passes, 1.0),
            {name: {"reference": 0.9, "near": 3.0 if name == "d_input" else 0.95, "far": 0.1} for name in passes},
        )

    monkeypatch.setitem(tuning.CLOCKS, "measure", (measure, lambda size, dtype: 1.0))
    model = chain(8)
    plan = tune_(model, images())
    assert model[0].choice().kernels == ("reference", "near", "reference")
    row = plan.layers[0].passes["d_input"]
    assert row.measured == 3.0
    assert row.predicted != row.measured
    assert "reference/near/reference" in repr(model[0])


def test_every_distinct_layer_is_timed_for_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = clock(monkeypatch)
    model = nn.Sequential(
        chain(8, 4), nn.Flatten(), SparseLinear.of(nn.Linear(144, 3), Mask(torch.ones(3, 144, 1, 1) > 0))
    )
    tune_(model, images(5))
    assert [case.size for case in timed] == [(5, 4, 6, 6), (5, 8, 6, 6), (5, 144, 1, 1)]
    with torch.autocast("cpu", torch.bfloat16):
        plan = tune_(model, images())
    assert timed[-1].dtype == torch.bfloat16
    assert plan.layers[0].dtype == "bfloat16"


def test_a_layer_that_runs_twice_has_one_format(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, move=0.05, far=9.0)
    shared = SparseConv2d.of(nn.Conv2d(4, 4, 1), Mask(torch.ones(4, 4, 1, 1) > 0))
    plan = tune_(nn.Sequential(shared, chain(8, 4), shared), images())
    assert [layer.name for layer in plan.layers] == ["0", "1.0", "1.3"]
    assert formats(plan) == ["nhwc", "chwn", "chwn"]


def test_a_kernel_that_was_asked_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, far=9.0)
    dense = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(SparseConv2d.of(dense, Mask(torch.ones(4, 4, 1, 1) > 0), kernel="near"))
    plan = tune_(model, images())
    assert plan.layers == []
    assert plan.forced == {"0": "near"}
    assert model[0].choice() == Choice.of("near")


def test_the_model_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            np.random.rand()
            return x + torch.rand(())

    clock(monkeypatch)
    model = nn.Sequential(Counting(), chain(8, 4), nn.Dropout())
    model[1][1].eval()
    before = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    tune_(model, images())
    assert all(torch.equal(a, b) for a, b in zip(before[0].values(), model.state_dict().values(), strict=True))
    assert before[1] == [m.training for m in model.modules()]
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_dense_convolutions_are_seen_in_order() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), chain(8), nn.Conv2d(8, 2, 1))
    assert [visit.name for visit in record(model, images())] == ["0", "1.0", "2"]
    model[2] = nn.Conv2d(3, 2, 1)
    with pytest.raises(RuntimeError, match="channels"):
        record(model, images())
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_what_cannot_be_tuned() -> None:
    with pytest.raises(UsageError, match="compress_ it first"):
        tune_(nn.Sequential(nn.Conv2d(4, 4, 1)), images())
    with pytest.raises(UsageError, match=r"wrapped by torch\.compile"):
        tune_(torch.compile(chain(8)), images())  # pyright: ignore[reportArgumentType]
    with pytest.raises(UnknownName, match="measure"):
        tune_(chain(8), images(), by="mesure")


def test_the_model_way_and_off(monkeypatch: pytest.MonkeyPatch) -> None:
    timed, model = clock(monkeypatch), chain(8, 4)
    assert tune_(model, images(), by="model") == tune_(model, images(), by="model")
    monkeypatch.setenv("CAMPFIRE_DISPATCH", "off")
    plan = tune_(model, images())
    assert all(layer.choice.dense for layer in plan.layers)
    assert plan.layers[0].passes["forward"].why_not["near"] == "everything is to run dense"
    assert timed == []


def test_a_plan_is_plain_data_and_goes_to_a_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, far=9.0)
    model, twin = chain(8, 4), chain(8, 4)
    plan = tune_(model, images())
    again = Plan.from_dict(pickle.loads(pickle.dumps(plan.to_dict())))
    assert again == plan
    assert again.apply(twin) == {}
    assert repr(twin) == repr(model)
    assert repr(copy.deepcopy(model)) == repr(model)
    assert repr(pickle.loads(pickle.dumps(model))) == repr(model)
    with pytest.raises(CheckpointError, match=r"sparse layer '3' of shape \(4, 8, 1, 1\), and this model one of"):
        again.apply(chain(8, 8))
    monkeypatch.delitem(KERNELS, "near")
    monkeypatch.setattr(Same, "why_not", lambda *_: ["not here"])
    assert set(again.apply(twin)) == {"0", "3"}
    assert twin[0].choice().dense
    torch.testing.assert_close(twin(images()), model(images()))


@pytest.mark.parametrize("part", ["layers", "forced"])
def test_a_damaged_plan(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch)
    saved = tune_(chain(8), images()).to_dict()
    for wrong in (None, 3, [{"name": "0"}]):
        with pytest.raises(CheckpointError, match="plan"):
            Plan.from_dict({**saved, part: wrong})
    saved["layers"][0]["dtype"] = "nn"
    with pytest.raises(CheckpointError, match="dtype"):
        Plan.from_dict(saved)


def test_compressing_for_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, near=3.0)
    model, optimizer, pruner = frozen()
    report = compress_(model, pruner, optimizer, example=torch.randn(4, 3, 6, 6, dtype=torch.float64))
    assert report.plan is not None
    assert {row.kernel for row in report.layers} == {"near"}
    assert "4 of 4 sparse layers run on kernels of their own" in str(report)
    assert report.to_dict()["plan"]["layers"][0]["name"] == "body"
    train(model, optimizer, range(3, 5))


class Shortcut(nn.Module):
    """x plus what a chain makes of it; the chain's first layer is handed the same tensor."""

    def __init__(self, *outputs: int) -> None:
        super().__init__()
        self.body = chain(*outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + x


def test_tensors_change_their_format_where_they_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, move=0.05, far={8: 10.0, 4: 10.0})
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(Shortcut(8, 4), Shortcut(8, 4)), nn.Conv2d(4, 4, 1))
    expected = model(images()).detach()
    plan = tune_(model, images())
    assert formats(plan) == ["chwn"] * 4
    assert plan.entrances == entrances(model) == {"1": "chwn"}
    again = Plan.from_dict(plan.to_dict())
    assert again == plan
    assert tune_(model, images()).entrances == {"1": "chwn"}
    torch.testing.assert_close(model(images()).detach(), expected)
    tune_(model, images(), by="off")
    assert entrances(model) == {}
    again.apply(model)
    assert entrances(model) == {"1": "chwn"}
    with pytest.raises(CheckpointError, match="no part '9'"):
        Plan(entrances={"9": "chwn"}).apply(model)


def test_modules_that_run_twice_are_no_entrances(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Shortcut(8, 4)
    visits = record(nn.Sequential(nn.Sequential(block, block)), images())
    assert [visit.entrance for visit in visits] == ["0", "", "", ""]


@pytest.mark.parametrize(
    ("ratios", "expected", "told"),
    [
        ({"mixed": 1.5, "nhwc": 1.2, "dense": 1.0}, ["chwn", "chwn"], "1.50 x dense"),
        ({"mixed": 1.1, "nhwc": 1.2, "dense": 1.0}, ["nhwc", "nhwc"], "1.20 x dense"),
        ({"mixed": 0.9, "nhwc": 1.01, "dense": 1.0}, ["dense", "dense"], "1.00 x dense, with kernels 1.01, so there"),
        ({"mixed": 0.97, "nhwc": 0.9, "dense": 0.93}, ["chwn", "chwn"], "0.97 x dense: in float32 compression saves"),
    ],
)
def test_the_whole_model_has_the_last_word(
    monkeypatch: pytest.MonkeyPatch, ratios: dict[str, float], expected: list[str], told: str
) -> None:
    clock(monkeypatch, move=0.05, far=10.0, near=2.0)
    given: list[list[str]] = []
    monkeypatch.setattr(tuning, "race", lambda model, x, training, plans: given.append(list(plans)) or ratios)
    model = chain(8, 4)
    plan = tune_(model, images())
    assert given == [["mixed", "nhwc", "dense"]]
    assert ["dense" if layer.choice.dense else layer.format for layer in plan.layers] == expected
    assert [model[i].choice() for i in (0, 3)] == [layer.choice for layer in plan.layers]
    assert f"the whole model measured {told}" in str(plan)
    assert ("saves memory" in str(plan)) == (not plan.pays)
    assert (type(model[1]) is BatchNorm2d) == (expected[0] == "chwn")
    assert Plan.from_dict(plan.to_dict()) == plan
    old = {key: value for key, value in plan.to_dict().items() if key != "refused"}
    assert Plan.from_dict(old).whole == plan.whole


def test_a_model_without_kernels_is_timed_beside_the_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, far=0.5, near=0.5)
    monkeypatch.setattr(tuning, "race", lambda *_: {"dense": 0.9})
    with torch.autocast("cpu", torch.bfloat16):
        plan = tune_(chain(8, 4), images())
    assert (plan.whole, plan.refused, plan.pays) == (0.9, None, False)
    assert "0.90 x dense: in bfloat16 compression saves memory here, and no time" in plan.summary()


def test_layers_left_dense_for_the_whole_model_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, move=0.05, near=2.0)
    monkeypatch.setattr(tuning, "race", lambda *_: {"nhwc": 0.9, "dense": 1.0})
    plan = tune_(chain(8, 4), images())
    assert plan.layers[0].passes["forward"].why_not["near"] == "the whole model is not faster with it"
    assert "so there are none" in plan.summary()
