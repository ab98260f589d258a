"""A fused copy in one dtype has nothing of what was arranged for another."""

import torch
from torch import nn

from campfire import Mask, SparseConv2d, fuse
from campfire.kernels.choice import Choice
from campfire.nn.entrances import entrances, open_


def test_entrances_of_another_dtype_do_not_keep_layers_from_being_fused() -> None:
    keep = torch.rand(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    model = nn.Sequential(SparseConv2d.of(nn.Conv2d(4, 8, 3), Mask(keep)), nn.BatchNorm2d(8), nn.ReLU())
    model[0].assign(Choice(), torch.bfloat16)
    open_(model, {"0": "chwn"}, torch.float32)
    fused = fuse(model, torch.bfloat16)
    assert fused.report.dense == ["0"]
    assert fused.report.folded == {"1": "0"}
    assert entrances(fused) == {}
    assert entrances(model) == {"0": "chwn"}
