"""How fast images go by, and how long a run waits for them."""

import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Waiting(Generic[T]):
    """Hands on what a stream yields, and adds up how long it took to come.

    >>> stream = Waiting(iter([1, 2]))
    >>> list(stream), stream.seconds >= 0
    ([1, 2], True)
    """

    def __init__(self, stream: Iterable[T]):
        self.stream, self.seconds = stream, 0.0

    def __iter__(self) -> Iterator[T]:
        source, end = iter(self.stream), object()
        while True:
            began = time.perf_counter()
            item = next(source, end)
            self.seconds += time.perf_counter() - began
            if item is end:
                return
            yield item  # pyright: ignore[reportReturnType]


def pace(images: float, seconds: float, waited: float) -> str:
    """For a person.

    >>> pace(6400, 2.0, 0.1)
    '3,200 img/s, 5 % of the time waiting for images'
    """
    seconds = max(seconds, 1e-9)  # a clock may stand still
    return f"{images / seconds:,.0f} img/s, {100 * waited / seconds:.0f} % of the time waiting for images"
