"""Models that hold computed tensors are refused with the cure, by fuse and by exports alike."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from campfire import fuse
from campfire.errors import UsageError
from campfire.export import Subject, export


def pruned() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    prune.l1_unstructured(net[0], "weight", 0.5)
    return net.eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def normed() -> nn.Module:
    return nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)).eval()


class Keeping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.kept = nn.Conv2d(3, 4, 3), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept.append(self.conv(x))
        return self.kept[-1]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize(("make", "what"), [(pruned, "0.weight"), (normed, "0.weight"), (Keeping, "a tensor")])
def test_computed_tensors(make: type[nn.Module], what: str, tmp_path: Path) -> None:
    net, x = make(), torch.randn(2, 3, 8, 8)
    net(x).sum().backward()
    with pytest.raises(UsageError, match=f"it holds {what}, computed with gradients") as caught:
        fuse(net)
    assert "prune.remove" in str(caught.value)
    assert "remove_weight_norm" in str(caught.value)
    with pytest.raises(UsageError, match="cannot be copied"):
        export(Subject(net, x), tmp_path / "net.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize("make", [pruned, normed])
def test_the_cures(make: type[nn.Module]) -> None:
    net, x = make(), torch.randn(2, 3, 8, 8)
    net(x).sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(fuse(net)(x) if net(x) is not None else x, net(x))
    net(x).sum().backward()
    prune.remove(net[0], "weight") if make is pruned else nn.utils.remove_weight_norm(net[0])
    assert fuse(net).report.folded == {"1": "0"}
