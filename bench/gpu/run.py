"""All stages of `bench/gpu.sh`, one after another, until the time is up; results are written after each of them."""

import argparse
import json
import os
import re
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import stand_ins
from limits import TimeUp, limited

BEGUN = time.monotonic()  # before torch is loaded, which may take long
RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="tiny shapes on the CPU, to try this script")
    parser.add_argument("--seconds", type=float, default=520, help="when no stage is begun any more (default: 520)")
    parser.add_argument("--only", default="", metavar="A,B", help="these stages")
    parser.add_argument("--output", type=Path, help="a folder for the results (default: bench/results; --dry: none)")
    parser.add_argument("--small", action="store_true", help="one call of every kernel, for the sanitizer")
    args, rest = parser.parse_known_args([x for x in sys.argv[1:] if x != "--pytest"])
    missing = stand_ins.install([x for x in os.environ.get("WITHOUT", "").split(",") if x])
    if "--pytest" in sys.argv:
        import pytest

        return int(pytest.main(rest))
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    if args.small:
        import stages

        stages.small()
        return 0
    return run(args, missing)


def run(args: argparse.Namespace, missing: list[str]) -> int:
    """The stages; 1 where one failed."""
    import torch

    if not args.dry and not torch.cuda.is_available():
        print("no GPU is here; --dry tries the script without one", file=sys.stderr)
        return 2
    import stages
    import targets

    from campfire.bench.timing import machine

    torch.backends.cudnn.benchmark = not args.dry
    where = machine(torch.device("cpu" if args.dry else "cuda"))
    results: dict[str, Any] = {"when": time.strftime("%Y-%m-%d"), "machine": where, "dry": args.dry, "without": missing}
    results["stages"] = {}
    for stage in stages.STAGES:
        if not args.only or stage.__name__ in args.only.split(","):
            results["stages"][stage.__name__] = _one(stage, args, BEGUN, results)
            results["seconds"] = time.monotonic() - BEGUN
            results["targets"] = targets.table(results)
            write(results, args)
    print(targets.markdown(results))
    return int(any(x["error"] for x in results["stages"].values()))


def _one(stage: Any, args: argparse.Namespace, begun: float, results: dict[str, Any]) -> dict[str, Any]:
    """Seconds, and what went wrong, if anything; what was measured before that stays."""
    start, error = time.monotonic(), None
    left = args.seconds - (start - begun)
    if left <= 0:
        return {"seconds": 0.0, "error": "the time was up"}
    try:
        with limited(left if args.dry else min(left, stage.limit)):
            results[stage.__name__] = stage(args.dry)
    except (Exception, TimeUp) as problem:
        traceback.print_exc()
        error = f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"
        if isinstance(problem, TimeUp) and problem.found is not None:
            results[stage.__name__] = problem.found
    seconds = time.monotonic() - start
    print(f"{stage.__name__}: {seconds:.1f} s{'' if error is None else ', ' + error}", flush=True)
    return {"seconds": seconds, "error": error}


def write(results: dict[str, Any], args: argparse.Namespace) -> None:
    """NAME.json and NAME.md, whole or not at all; and copies where OUT says."""
    import targets

    folder = args.output or (None if args.dry else RESULTS)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    where = results["machine"]
    gpu = re.sub(r"^nvidia-", "", re.sub(r"[^a-z0-9]+", "-", where.get("gpu", "cpu").lower()).strip("-"))
    name = f"{gpu}-torch{where['torch'].split('+')[0]}-triton{where.get('triton')}"
    for suffix, text in ((".json", json.dumps(results, indent=1) + "\n"), (".md", targets.markdown(results))):
        path = folder / (name + suffix)
        path.with_suffix(".part").write_text(text)
        path.with_suffix(".part").replace(path)
        if out := os.environ.get("OUT"):
            shutil.copy(path, out)


if __name__ == "__main__":
    sys.exit(main())
