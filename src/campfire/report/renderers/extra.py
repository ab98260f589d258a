"""What only some commands need: imported where used, with the cure where missing."""

from importlib import import_module
from typing import Any

from campfire.errors import CampfireError


def need(module: str) -> Any:
    """Import ``module``.

    Raises:
        CampfireError: it is not installed; how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise CampfireError(
            f"the HTML report needs {module.split('.')[0]}, which cannot be imported ({error}); "
            "pip install 'campfire-sparse[report]', or leave it at Markdown with --no-html"
        ) from error
