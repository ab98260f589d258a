"""Small networks lose outputs easily: here the warning counts only where a test waits for it."""

import pathlib

import pytest

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs"), append=False)
