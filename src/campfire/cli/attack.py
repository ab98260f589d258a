"""``campfire attack``: how much accuracy trained networks keep when images are moved to mislead them."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campfire.cli.flags import Parser
from campfire.cli.targets import require_free
from campfire.errors import CheckpointError, UnknownName, UsageError

if TYPE_CHECKING:
    from campfire.attack import Attack
    from campfire.training.robustness import Trial

EPS = {("pixel", "linf"): "1/255,2/255,4/255,8/255", ("normalised", "linf"): "0.05,0.1,0.15,0.2,0.25,0.3"}
LATEST = ("last.pt", "model.safetensors")  # the weights that a run's accuracy is of


def parser() -> Parser:
    """Everything ``campfire attack`` understands."""
    own = Parser(
        prog="campfire attack",
        usage="campfire attack RUN [RUN...] [options]",
        description="Move the same test images to mislead each network, and count what is still classified rightly. Results go "
        "to attack.json in each run directory, where reports find them.",
    )
    own.add_argument("runs", nargs="+", metavar="RUN", help="run directories or checkpoints, of the same images")
    own.add_argument(
        "--attack", default="fgsm", metavar="NAMES",
        help="by commas: fgsm, pgd, autoattack, or a part of the latter: apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square",
    )  # fmt: skip
    own.add_argument(
        "--eps", metavar="LIST",
        help="distances by commas, such as 2/255,8/255 (default: 1, 2, 4 and 8 levels of 255; normalised: 0.05 to 0.3)",
    )  # fmt: skip
    own.add_argument("--norm", default="linf", metavar="linf|l2", help="what a distance is (default: linf)")
    own.add_argument(
        "--space", default="pixel", metavar="pixel|normalised",
        help="units of eps: values in [0, 1], or as the network sees them (default: pixel)",
    )  # fmt: skip
    _add_pgd(own)
    own.add_argument("--num-examples", default="1000", metavar="N|all", help="test images (default: 1000)")
    own.add_argument("--seed", type=int, default=0, metavar="N", help="of the images and of all that is drawn")
    own.add_argument("--data", metavar="DATA", help="other images than the runs' own, of the same classes")
    own.add_argument(
        "--compress", action="store_true", help="attack pruned networks compressed, through sparse kernels"
    )
    own.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, ... (default: auto)")
    own.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    own.add_argument(
        "-o", "--output", metavar="FILE", help="one JSON file for all runs, instead of attack.json in each"
    )
    own.add_argument("--overwrite", action="store_true", help="replace results on other images or weights")
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def _add_pgd(own: Parser) -> None:
    pgd = own.add_argument_group("pgd")
    pgd.add_argument("--steps", type=int, default=10, metavar="N", help="steps (default: 10)")
    pgd.add_argument("--step-size", metavar="X", help="length of a step (default: 2.5 eps / steps)")
    pgd.add_argument("--restarts", type=int, default=1, metavar="N", help="attempts; the worst counts (default: 1)")
    pgd.add_argument("--start", default="random", metavar="random|image", help="of the first attempt (default: random)")


def main(argv: Sequence[str]) -> int:
    """Attack as the flags say."""
    args = parser().parse(argv)
    from campfire.cli.attack_text import side_by_side
    from campfire.training.progress import log_on_stderr
    from campfire.training.robustness import trials

    attacks, eps = _attacks(args), _eps(args)
    with log_on_stderr():
        found = trials(
            args.runs, attacks, eps, space=args.space, num_examples=_count(args.num_examples), seed=args.seed,
            source=args.data, compress=args.compress, device=args.device, threads=args.threads,
        )  # fmt: skip
        records = _in_one_file(found, args) if args.output else _in_runs(found, args.overwrite)
    print(json.dumps({"runs": records}) if args.json else side_by_side(records))
    return 0


def _write(path: Path, record: dict[str, Any]) -> None:
    from campfire.files.writing import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _in_one_file(found: "list[Trial]", args: argparse.Namespace) -> list[dict[str, Any]]:
    output = Path(args.output)
    for run in args.runs:
        require_free(output, run)
    if not output.parent.is_dir() or output.is_dir() or (output.exists() and not args.overwrite):
        what = (
            "is there already; give --overwrite, or another"
            if output.is_file()
            else "is no file in a folder; give another"
        )
        raise UsageError(f"the output {output} {what} --output")
    records = [trial.record() for trial in found]
    _write(output, {"runs": records})
    return records


def _in_runs(found: "list[Trial]", overwrite: bool) -> list[dict[str, Any]]:
    """Each record beside its run, with what earlier attacks on the same images left there; kept as soon as it is made."""
    from campfire.attack.record import FILE, merged

    for trial in found:
        if trial.path.is_file() and trial.path.name not in LATEST:
            raise UsageError(
                f"{FILE} beside {trial.path} is of the run's last weights; results on others need --output FILE"
            )
    places = [trial.path / FILE if trial.path.is_dir() else trial.path.with_name(FILE) for trial in found]
    if len({place.resolve() for place in places}) < len(places):
        raise UsageError("two of these lie in one folder, where there is one attack.json; give --output FILE")
    for place, trial in zip(places, found, strict=True):
        _earlier(place, trial, overwrite)  # refuses now, and not when hours are spent
    records = []
    for place, trial in zip(places, found, strict=True):
        record = trial.record()
        records.append(merged(_earlier(place, trial, overwrite), record))  # another attack may have ended meanwhile
        _write(place, records[-1])
    return records


def _earlier(place: Path, trial: "Trial", overwrite: bool) -> dict[str, Any] | None:
    """The record that is there, where its results stand beside those of the trial; others give way to ``overwrite``."""
    from campfire.attack.record import read, why_another

    try:
        old = read(place)
    except CheckpointError:
        if not overwrite:
            raise
        return None
    reasons = [] if old is None else why_another(old, trial.facts)
    if reasons and not overwrite:
        raise UsageError(f"{place} has results on {' and '.join(reasons)}; give --overwrite, or --output FILE")
    return None if reasons else old


def _attacks(args: argparse.Namespace) -> "list[Attack]":
    from campfire.attack import named
    from campfire.attack.distances import read_eps

    options: dict[str, Any] = {name: getattr(args, name) for name in ("norm", "steps", "restarts", "start")}
    step_size = None if args.step_size is None else read_eps(args.step_size)
    names = dict.fromkeys(filter(None, (name.strip() for name in args.attack.split(","))))
    if not names:
        raise UsageError("--attack names no attack; campfire attack --help lists them")
    return [named(name, step_size=step_size, **options) for name in names]


def _eps(args: argparse.Namespace) -> list[float]:
    from campfire.attack.distances import SPACES, read_eps

    if args.space not in SPACES:
        raise UnknownName("space", args.space, SPACES)
    given = args.eps or EPS.get((args.space, args.norm))
    if given is None:
        raise UsageError("--eps is needed with this norm: --norm l2 --eps 0.5 is usual for images of 32 pixels")
    texts = [text.strip() for text in given.split(",")]
    return sorted({read_eps(text) for text in texts if text})


def _count(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--num-examples is a number or all; got {text!r}") from None
