"""What the benchmarks do on a GPU, as far as it can be seen without one."""

import pytest
import torch
from torch import nn

from campfire.bench import cuda
from campfire.bench.kernels import bench_kernels
from campfire.bench.memory import held, saved
from campfire.cli import main
from campfire.errors import UsageError

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("masks", "kernels", "model"):
        assert main(["bench", what, "--model", "resnet8", "--device", "cuda"]) == 2
        assert "--device cuda wants an NVIDIA GPU" in capsys.readouterr().err


def test_inputs_take_turns_until_the_cache_has_forgotten_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        L2_cache_size = 50 << 20

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    gpu = torch.device("cuda")
    assert [cuda.copies(mb << 20, gpu) for mb in (1, 20, 60, 1000)] == [8, 6, 3, 2]
    assert cuda.copies(1 << 20, CPU) == 1


def test_a_turn_runs_every_input_and_counts_one() -> None:
    seen: list[int] = []
    runs = [lambda i=i: seen.append(i) for i in range(3)]
    times = cuda.turns({"a": runs, "b": [lambda: None]}, 2, CPU)
    assert seen == [0, 1, 2] * 3
    assert len(times["a"]) == len(times["b"]) == 2


def test_layers_can_be_chosen() -> None:
    small = {"model": "resnet18", "batches": [1], "rounds": 1, "size": 32}
    found = bench_kernels(["block-32x4"], **small, layers=lambda layer: layer.shape == (64, 64, 3, 3))  # pyright: ignore
    assert [row["layer"] for row in found["layers"]] == ["64->64 3x3/1 @8"]
    with pytest.raises(UsageError, match="no layer of resnet18 is left for block-32x4"):
        bench_kernels(["block-32x4"], **small, layers=lambda layer: False)  # pyright: ignore[reportArgumentType]


def test_memory_before_and_after_compression() -> None:
    found = saved("resnet8", "hrbp:rows=16,channels=4", 0.75, CPU)
    before, after = found["before"], found["after"]
    assert before["weights"] == before["gradients"] == before["optimizer"]
    for kind in ("weights", "gradients", "optimizer"):
        assert 0.2 < after[kind] / before[kind] < 0.62
    assert 0 < found["indices"] < 0.05 * before["weights"]
    net = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert held(net, optimizer) == {"weights": 40, "gradients": 40, "optimizer": 88, "allocated": 0}
