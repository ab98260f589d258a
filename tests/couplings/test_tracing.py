"""What really runs decides: shared, computed and moving tensors, wrappers, and models that cannot be traced."""

from types import SimpleNamespace

import pytest
import torch
from coupling_nets import Forward, check_exact, images, kill, lively, reasons, vgg
from torch import nn
from torch.nn.utils import prune

from campfire.couplings import eliminate_, find_dead
from campfire.errors import UsageError


@pytest.mark.parametrize("case", ["module twice", "weight tied", "bias tied", "weight read elsewhere"])
def test_what_is_shared_is_not_edited(case: str):
    def forward(self, x):
        y = self.b(self.a(x))
        if case == "module twice":
            y = self.b(y)
        return y + self.b.weight.sum() if case == "weight read elsewhere" else self.c(y)

    model = lively(Forward(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1), c=nn.Conv2d(4, 4, 1)))
    if case == "weight tied":
        model.c.weight = model.b.weight
    if case == "bias tied":
        model.c.bias = model.b.bias
    kill(model.a, 2)
    report = check_exact(model, images())
    assert report.freed == 0
    assert "shared" in report.channels[0].reason


def test_a_module_under_two_names_is_not_shared():
    model = lively(Forward(lambda self, x: self.body(x), body=nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))))
    model.again = model.body[1]
    kill(model.body[0], 1)
    assert reasons(check_exact(model, images())) == {("body.0", 1, "body.1"): None}


def test_a_buffer_that_moves_is_not_a_constant():
    def forward(self, x):
        self.steps += 1
        return self.reader(self.conv(x) * self.steps)

    model = lively(Forward(forward, conv=nn.Conv2d(3, 4, 1), reader=nn.Conv2d(4, 5, 1)))
    model.register_buffer("steps", torch.zeros(()))
    kill(model.conv, 1)
    assert eliminate_(model, images()).freed == 0
    assert model.steps == 0


def test_a_computed_weight_is_refused():
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)))
    kill(model[0], 1)
    prune.identity(model[1], "weight")
    with torch.no_grad():
        before = model(images())
        assert "computed" in eliminate_(model, images()).channels[0].reason
        assert torch.equal(model(images()), before)


def test_a_compiled_model_is_edited_under_its_plain_names():
    model = lively(vgg())
    kill(model[0][4], 2)
    assert eliminate_(torch.compile(model), images()).channels[0].layer == "0.4"
    assert not model[1][1].weight[:, 18:27].any()


def test_a_data_dependent_forward_pass_is_an_error(capfd):
    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x

    model = Forward(forward, conv=nn.Conv2d(3, 4, 1)).train()
    with pytest.raises(UsageError, match=r"Forward could not be traced on an example of shape \(4, 3, 8, 8\)") as error:
        eliminate_(model, images())
    assert "Cure:" in str(error.value)
    assert model.conv.training
    assert capfd.readouterr() == ("", "")


def test_a_wrong_example_is_an_error():
    with pytest.raises(UsageError, match="5 channels"):
        find_dead(nn.Conv2d(5, 4, 1), images())
    with pytest.raises(UsageError, match="SimpleNamespace"):
        find_dead(nn.Conv2d(5, 4, 1), (SimpleNamespace(),))
