import pytest
import torch

from campfire.errors import UnknownName, UsageError
from campfire.scores import Random, named


def test_scores_are_what_they_say() -> None:
    weight, grad = torch.tensor([[-2.0, 3.0]]), torch.tensor([[0.5, -1.0]])
    assert named("magnitude")(weight, None).tolist() == [[2, 3]]
    assert named("taylor")(weight, grad).tolist() == [[1, 9]]
    with pytest.raises(UsageError, match="backward"):
        named("taylor")(weight, None)
    with pytest.raises(UnknownName, match="did you mean 'taylor'"):
        named("tailor")


def test_random_depends_on_seed_and_layer_alone() -> None:
    weight = torch.zeros(4, 4)
    a = Random(0).for_layer("conv1")
    assert torch.equal(a(weight, None), Random(0).for_layer("conv1")(weight + 1, None))
    assert not torch.equal(a(weight, None), Random(0).for_layer("conv2")(weight, None))
    assert not torch.equal(a(weight, None), Random(1).for_layer("conv1")(weight, None))
