"""Later: numbers that a GPU will tell, looked at when they have come, so that no step waits for them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Use = Callable[[list[int]], None]


class Later:
    """Numbers under way and what to do with them. On a CPU everything happens at once."""

    def __init__(self) -> None:
        self._asked: list[tuple[torch.cuda.Event, Tensor, Use]] = []

    def ask(self, numbers: Sequence[Tensor], use: Use) -> None:
        """Call ``use`` with the values of int tensors [n], one after another, as soon as they are known."""
        if not numbers:
            return
        together = torch.cat([x.to(numbers[0].device) for x in numbers])
        if together.device.type != "cuda":
            use(together.tolist())
            return
        host = torch.empty(together.shape, dtype=together.dtype, pin_memory=True).copy_(together, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(together.device))
        self._asked.append((event, host, use))

    def hear(self, wait: bool = False) -> None:
        """Use what has come; or all, waiting for it."""
        while self._asked and (wait or self._asked[0][0].query()):
            event, host, use = self._asked.pop(0)
            event.synchronize()
            use(host.tolist())
