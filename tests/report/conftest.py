from pathlib import Path

import pytest
from run_records import write_run


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    """A dense run and a CK run that belong together."""
    return [write_run(tmp_path / "dense", structure=None), write_run(tmp_path / "ck70", offset=0.4217)]
