"""Names of layers are the same, whatever is wrapped around the model or its parts."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel
from torch.optim.swa_utils import AveragedModel

from campfire.naming import bare, by_layer, named_layers


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


def net() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)))
    model[0], model[1][1] = compiled(model[0]), compiled(model[1][1])
    model.again = model[0]
    return model


WRAPS = {
    "nothing": net,
    "compiled": lambda: compiled(net()),
    "averaged": lambda: AveragedModel(net()),
    "all": lambda: AveragedModel(compiled(DataParallel(net()))),
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_layers_are_called_what_they_are_in_the_users_model(wrap: str) -> None:
    model = WRAPS[wrap]()
    assert type(bare(model)) is nn.Sequential
    assert [name for name, module in named_layers(model) if isinstance(module, nn.Conv2d | nn.Linear)] == ["0", "1.1"]


@pytest.mark.parametrize("wrap", WRAPS)
def test_what_is_given_by_other_names_is_found(wrap: str) -> None:
    model = WRAPS[wrap]()
    raw = next(name for name, module in model.named_modules() if type(module) is nn.Linear)
    assert by_layer(model, {"0": 1, raw: 2, "nonsense": 3, "1.7": 4}) == {
        "0": 1,
        "1.1": 2,
        "nonsense": 3,
        "1.7": 4,
    }


def test_a_second_name_is_the_first() -> None:
    assert by_layer(net(), {"again": 1}) == {"0": 1}


def test_a_layer_that_is_called_as_wrappers_call_theirs_keeps_its_name() -> None:
    model = nn.ModuleDict({"module": nn.Sequential(nn.Linear(2, 2)), "0": nn.Linear(2, 2)})
    assert by_layer(AveragedModel(model), {"module.0": 1, "0": 2}) == {"module.0": 1, "0": 2}
