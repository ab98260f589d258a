"""Fixtures of the training tests."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Runs set the number of threads of the process; put it back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
