"""Recipes: configurations of published experiments, whose headers hold the published numbers and ours.

They lie in ``campfire/recipes`` (in the repository also ``recipes``), which may hold other YAML files too, such as grids: a recipe is
a file whose header has a table that ends in a column ``ours``::

    # Campfire: CK, era 40 to 60, ResNet-50 v1.5 on ImageNet
    #
    # | flags | paper, epoch 100 | ours |
    # |---|---|---|
    # | --sparsity 0.6 | 75.33 | not yet run |
    #
    # campfire train IMAGENET -c recipes/campfire-v15-ck-start40.yaml --sparsity 0.6
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from campfire.errors import UsageError

FOLDER = Path(__file__).parent.parent / "recipes"
NOT_RUN = "not yet run"


@dataclass(frozen=True)
class Row:
    """One result: what is added to the recipe's command, what was published under which heading, and what we have."""

    flags: str
    paper: dict[str, str]
    ours: str | None  # None: not yet run


@dataclass(frozen=True)
class Recipe:
    """A recipe's name, title, remarks, command without flags, and results."""

    name: str
    title: str
    remarks: str
    rows: tuple[Row, ...]

    @property
    def file(self) -> str:
        return f"recipes/{self.name}.yaml"


def find(path: str | Path) -> Path:
    """The file itself, or, where there is none, the one of the package if ``path`` is ``recipes/NAME.yaml``.

    >>> find("recipes/campfire-v15-ck-start40.yaml").is_file()
    True
    """
    path = Path(path)
    packaged = FOLDER / path.name
    return packaged if not path.exists() and path.parent.name == FOLDER.name and packaged.is_file() else path


def recipes() -> list[Recipe]:
    """All recipes of the package, by name."""
    found = (_read(path) for path in sorted(FOLDER.glob("*.yaml"), key=lambda path: path.stem))
    return [recipe for recipe in found if recipe.rows]


def _read(path: Path) -> Recipe:
    title, *lines = [*_header(path.read_text(encoding="utf-8")), ""]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    remarks = " ".join(line for line in lines if line and not line.startswith(("|", "campfire ")))
    return Recipe(path.stem, title, remarks, tuple(_rows(path, table)))


def _header(text: str) -> Iterator[str]:
    """The comment lines at its top, without their marks."""
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        yield line.lstrip("# ").rstrip()


def _rows(path: Path, table: list[list[str]]) -> Iterator[Row]:
    if not table or table[0][-1] != "ours":
        return
    names = table[0]
    for cells in table[2:]:
        if len(cells) != len(names):
            raise UsageError(f"{path}: a row of {len(names)} cells was wanted in the header; got {cells}")
        flags, *paper, ours = cells
        published = {n.removeprefix("paper, "): cell for n, cell in zip(names[1:-1], paper, strict=True) if cell}
        yield Row(flags, published, None if ours == NOT_RUN else ours)
