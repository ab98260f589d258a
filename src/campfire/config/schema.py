"""What can be configured: sections of options, each with its range, its help and its flag."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo


def option(default: Any, help: str, *aliases: str, flag: str = "", free: bool = False, **limits: Any) -> Any:
    """A field with its flag: ``aliases`` are further spellings, ``free`` ones may change when a run is resumed."""
    extra: dict[str, Any] = {"aliases": aliases, "flag": flag, "free": free}
    return Field(default, description=help, json_schema_extra=extra, **limits)


def _pairs(value: Any) -> Any:
    """``"2:0.3"`` as (2, 0.3), alone or in a list."""
    if value is None:
        return None
    items = value.split() if isinstance(value, str) else value
    pairs = [i.split(":") if isinstance(i, str) else i for i in items] if isinstance(items, list | tuple) else [()]
    if any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs):
        raise ValueError("input should be a list of EPOCH:SPARSITY")
    return [tuple(pair) for pair in pairs]


def _numbers(value: Any) -> Any:
    """``"30 60"`` as (30, 60)."""
    return value.split() if isinstance(value, str) else value


Numbers = Annotated[tuple[float, ...] | None, BeforeValidator(_numbers)]
Pairs = Annotated[tuple[tuple[float, float], ...] | None, BeforeValidator(_pairs)]


class Section(BaseModel):
    """Unknown keys are errors, values are checked, nothing changes after."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """images"""

    source: str = option(
        "digits",
        "a folder of images or of shards, hfds/NAME, digits or synthetic",
        "--data-dir",
        "--data-path",
        flag="data",
    )
    options: dict[str, Any] = option({}, "further arguments of the data source", flag="data-options")
    batch_size: int = option(64, "images in one step of one process", "-b", ge=1)
    validation_batch_size: int = option(256, "images at once when evaluating", free=True, ge=1)
    img_size: int | None = option(None, "side of the images in pixels; default: as the data has them", ge=1)
    workers: int = option(0, "processes that decode images", "-j", free=True, ge=0)
    skip_bad_images: bool = option(False, "warn and go on where an image cannot be read")


class Model(Section):
    """model"""

    name: str | None = option(
        None, "resnet8, resnet50, torchvision/NAME, package.module:factory, ...; default: by the data", "-a", "--arch",
        flag="model",
    )  # fmt: skip
    kwargs: dict[str, Any] = option({}, "further arguments of the model, such as width=2", flag="model-kwargs")
    pretrained: str | None = option(None, "weights to start from: a .safetensors or .pt file", "--initial-checkpoint")


class Pruning(Section):
    """pruning"""

    structure: str = option("ck", "ck, window, combined, 2:4, ..., inter-epoch, or dense to prune nothing")
    sparsity: float = option(0.7, "fraction of zeros wanted in the pruned layers", ge=0, lt=1)
    rules: dict[str, str | None] = option({}, "structures for some layers, such as 'layer1.*=window'; first match wins")
    scope: Literal["default", "all"] = option("default", "default leaves out the first convolution and linear layers")
    method: str = option(
        "gradual", "how masks change: gradual, iterative, rigl, set, snip, lottery, ...; campfire explain lists them"
    )
    schedule: Literal["era", "steps", "oneshot"] | None = option(
        None, "when; default: as the method has it, era for most"
    )
    era_start: float | None = option(None, "epoch in which pruning begins; default: a third of the epochs", ge=0)
    era_length: float | None = option(None, "epochs until the target is reached; default: a third", gt=0)
    era_by: Literal["epoch", "step"] | None = option(
        None, "clock of the era; default: epoch, step if there is one only"
    )
    era_initial: float | None = option(
        None, "sparsity at the start of the era; default: 0, or the target where the method regrows", ge=0, lt=1
    )
    era_power: float = option(3.0, "exponent of the era's curve", gt=0)
    steps: Pairs = option(
        None,
        "EPOCH:SPARSITY pairs of the steps schedule; default: three across the era, or across the run with lottery",
    )
    score: str = option("magnitude", "what makes a weight matter: magnitude, taylor or random")
    allocation: str | dict[str, float] = option(
        "uniform",
        "how the target is shared among layers: uniform, erk, global, ramp, or (in a file) a sparsity for each layer",
    )
    update_interval: int = option(1, "training steps between mask updates", ge=1)
    compress: bool = option(False, "once masks are final, train on with the surviving weights only")
    dispatch: Literal["measure", "model", "off"] | None = option(
        None, "how kernels of compressed layers are chosen; model times nothing, so runs repeat; default: measure"
    )


class Optim(Section):
    """optimisation"""

    epochs: int = option(20, "passes over the training images", ge=1)
    opt: Literal["sgd", "adam", "adamw"] = option("sgd", "optimizer")
    lr: float | None = option(None, "peak learning rate; default: 0.1 for sgd, 0.001 for adam and adamw", gt=0)
    lr_base_size: int | None = option(
        None, "images that lr is meant for: a step of more of them, over all processes, has linearly more", ge=1
    )
    momentum: float = option(0.9, "of sgd", ge=0, lt=1)
    nesterov: bool = option(True, "Nesterov momentum in sgd")
    weight_decay: float | None = option(None, "default: 5e-4 for sgd, 0 for adam, 0.05 for adamw", "--wd", ge=0)
    norm_weight_decay: float = option(0.0, "weight decay of biases and norms", ge=0)
    sched: Literal["cosine", "step", "onecycle", "constant"] = option("cosine", "learning-rate schedule")
    warmup_epochs: float | None = option(None, "linear warm-up; default: a twentieth of the epochs, at most 5", ge=0)
    min_lr: float = option(0.0, "where the cosine ends", ge=0)
    decay_epochs: float | None = option(None, "epochs between decays of step; default: a third of the epochs", gt=0)
    decay_milestones: Numbers = option(None, "epochs in which step decays, such as 30 60 80, instead of at intervals")
    decay_rate: float = option(0.1, "factor of each decay of step", gt=0, le=1)
    smoothing: float = option(0.0, "label smoothing", "--label-smoothing", ge=0, lt=1)
    mixup: float | None = option(
        None, "mix pairs of images, their shares drawn from Beta(X, X); default: 0.3 with clicktrain, else 0", ge=0
    )
    mixup_start: float | None = option(
        None, "epoch in which mixup begins; default: the end of the era with clicktrain, else 0", ge=0
    )
    clip_grad: float | None = option(None, "largest norm of the gradient", gt=0)
    grad_accum_steps: int = option(1, "batches whose gradients make one step", ge=1)
    model_ema: bool = option(False, "average the weights over steps; evaluate and keep the average")
    model_ema_decay: float = option(0.999, "of the average", ge=0, lt=1)


class Compute(Section):
    """device and precision"""

    device: str = option("auto", "auto, cpu, cuda or cuda:1", free=True)
    threads: int | None = option(None, "CPU threads; default: as torch chooses", free=True, ge=1)
    amp: bool = option(False, "mixed precision")
    amp_dtype: Literal["bfloat16", "float16"] = option("bfloat16", "of mixed precision; float16 scales its gradients")
    channels_last: bool = option(True, "store images channels last: faster on CPUs, and on GPUs with --amp")
    sync_bn: bool = option(False, "norms by the statistics of all processes' images; GPUs only", "--sync-batchnorm")
    compile: bool = option(False, "compile the model (torch.compile)", "--torchcompile")
    deterministic: bool = option(False, "only deterministic kernels, also on GPUs")


class Run(Section):
    """run"""

    seed: int = option(42, "of weights, order, augmentation and drawn scores", ge=0)
    log_interval: int = option(50, "steps between log lines", free=True, ge=1)
    checkpoint_interval: int = option(1, "epochs between checkpoints", free=True, ge=1)
    recovery_interval: int = option(0, "steps between checkpoints inside an epoch; 0: none", free=True, ge=0)
    keep_checkpoints: int = option(
        2, "newest checkpoints that are kept: last.pt, previous.pt, previous-2.pt, ...", free=True, ge=1
    )
    keep_epochs: Numbers = option(
        None, "numbers of epochs after which a checkpoint is kept, as epoch-<N>.pt", free=True
    )
    tensorboard: bool = option(False, "write the history as TensorBoard events, too, to tensorboard/", free=True)


class Config(Section):
    """Everything that decides the result of a run.

    Raises:
        pydantic.ValidationError: an unknown key, or a value out of range; `campfire.config.load` makes a `UsageError` of it.

    >>> Config().pruning.sparsity
    0.7
    """

    data: Data = Data()
    model: Model = Model()
    pruning: Pruning = Pruning()
    optim: Optim = Optim()
    compute: Compute = Compute()
    run: Run = Run()


SECTIONS: dict[str, type[Section]] = {n: f.annotation for n, f in Config.model_fields.items()}  # type: ignore[misc]
OPTIONS: dict[str, FieldInfo] = {f"{s}.{n}": f for s, cls in SECTIONS.items() for n, f in cls.model_fields.items()}


def _extra(path: str) -> dict[str, Any]:
    extra = OPTIONS[path].json_schema_extra
    return extra if isinstance(extra, dict) else {}


def flag_of(path: str) -> str:
    """The flag without dashes at its front: ``pruning.era_start`` is ``era-start``."""
    return (_extra(path)["flag"] or path.partition(".")[2]).replace("_", "-")


def aliases_of(path: str) -> tuple[str, ...]:
    """Further spellings of the flag, such as ``-b``."""
    return _extra(path)["aliases"]


FLAGS: dict[str, str] = {flag_of(path).replace("-", "_"): path for path in OPTIONS}
FREE = frozenset(path for path in OPTIONS if _extra(path)["free"])  # these do not change the result of a run
