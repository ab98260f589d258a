"""Where a model's name leads: this folder, torchvision, timm, or a factory of the user's (floor 1)."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import nn

from campfire.errors import UnknownName, UsageError
from campfire.models import ZOO

Builder = Callable[..., Any]
_OPTIONAL = {"in_channels": 3, "small_input": False}  # a builder may lack these while they have these values


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Call the builder that ``name`` leads to with the options it takes; arguments and errors as for `create`."""
    builder = find(name)
    takes = inspect.signature(builder).parameters
    given = {o: v for o, v in options.items() if o in takes or o not in _OPTIONAL or v != _OPTIONAL[o]}
    unknown = [o for o in given if o not in takes]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        raise UsageError(f"model {name!r} takes no {', '.join(unknown)}; it takes {', '.join(takes) or 'nothing'}")
    with _refusals(f"model {name!r}") if name in ZOO else nullcontext():
        model = builder(**given)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name!r} must return a torch.nn.Module; it returned {type(model).__name__}")
    return model


def find(name: str) -> Builder:
    """The function that makes the model: it takes at least ``num_classes``, by keyword."""
    if name in ZOO:
        return getattr(importlib.import_module(f"campfire.models.{ZOO[name]}"), name)
    source, slash, inner = name.partition("/")
    if slash and source in _LIBRARIES:
        return _LIBRARIES[source](inner)
    module, colon, factory = name.partition(":")
    if colon and all(part.isidentifier() for part in (*module.split("."), factory)):
        return _factory(module, factory)
    raise UnknownName("model", name, [*ZOO, *(f"{library}/NAME" for library in _LIBRARIES), "package.module:factory"])


def _torchvision(name: str) -> Builder:
    models = _load("torchvision").models
    _check("torchvision model", name, models.list_models(module=models))
    # These two return a tuple while training, unless told otherwise.
    plain = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}

    def build(num_classes: int, in_channels: int = 3, small_input: bool = False, **options: Any) -> nn.Module:
        if in_channels != 3 or small_input:
            raise UsageError(
                f"torchvision/{name} has the stem that torchvision gave it, for 3 channels; got in_channels="
                f"{in_channels}, small_input={small_input}. timm/NAME takes in_channels, the built-in models take both."
            )
        with _refusals(f"torchvision/{name}"):
            return models.get_model(name, num_classes=num_classes, **plain | options)

    return build


def _timm(name: str) -> Builder:
    timm = _load("timm")
    if not timm.is_model(name):
        _check("timm model", name, timm.list_models())

    def build(num_classes: int, in_channels: int = 3, **options: Any) -> nn.Module:
        with _refusals(f"timm/{name}"):
            return timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **options)

    return build


_LIBRARIES: dict[str, Callable[[str], Builder]] = {"torchvision": _torchvision, "timm": _timm}


def _factory(module: str, name: str) -> Builder:
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"cannot import the module {module!r} of the model {module}:{name} ({error}); is its folder on PYTHONPATH?"
        ) from error
    factory = getattr(loaded, name, None)
    if not callable(factory):
        raise UnknownName(f"factory in {module}", name, [n for n, value in vars(loaded).items() if callable(value)])
    return factory


def _load(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch raises RuntimeError
        version, _, build = torch.__version__.partition("+")
        index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
        cure = f"pip install 'torch=={version}' torchvision{index}"
        raise UsageError(
            f"{package} cannot be imported ({type(error).__name__}: {error}). It needs the torchvision that was built "
            f"for torch {torch.__version__}:\n  {cure}" + ("\n  pip install timm" if package == "timm" else "")
        ) from error


def _check(kind: str, name: str, known: list[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=8, cutoff=0.4)  # of a thousand
        raise UnknownName(kind, name, near or known[:8])


@contextmanager
def _refusals(model: str) -> Iterator[None]:
    """An option that a constructor does not know, or a value that it cannot take, surfaces as its TypeError or ValueError."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UsageError(f"{model}: {error}") from error
