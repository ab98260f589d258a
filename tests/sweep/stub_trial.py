"""A program in place of ``campfire train``: counts epochs in its run directory, and can be told to go wrong.

It understands what sweeps pass on, keeps checkpoints as training does, and takes its orders from the configuration:
``model.kwargs``: ``pace`` (seconds an epoch), and ``die`` or ``end``, mappings of an epoch to an exit code, negative for a signal;
it dies once at each such epoch, and ends every time. With ``gate`` it stays after its first epoch until that file is there.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml


def write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)


def main() -> int:
    words = dict(zip(sys.argv[1::1], sys.argv[2::1], strict=False))
    folder, config = Path(words["--output"]), yaml.safe_load(Path(words["--config"]).read_text())
    with open(folder / "attempts.txt", "a") as file:
        file.write(f"{os.getpid()} {words['--resume']}\n")
    start = folder / "last.pt" if words["--resume"] == "auto" else Path(words["--resume"])
    epoch = json.loads(start.read_text())["epoch"] if start.exists() else 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    orders, epochs, kept = config["model"]["kwargs"], config["optim"]["epochs"], config["run"]["keep_epochs"] or []
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    history = [json.dumps({"epoch": e, "eval_top1": 10.0 * (e + 1)}) for e in range(epoch)]
    while True:
        status(folder, "running", None, epoch)
        go_wrong(folder, orders, epoch)
        if epoch == epochs:
            break
        while epoch and "gate" in orders and not Path(orders["gate"]).exists():
            time.sleep(0.01)
        time.sleep(orders.get("pace", 0))
        history.append(json.dumps({"epoch": epoch, "eval_top1": 10.0 * (epoch + 1)}))
        epoch += 1
        write(folder / "metrics.jsonl", "\n".join(history) + "\n")
        for name in [f"epoch-{epoch}.pt"] * (epoch in kept) + ["last.pt"]:
            write(folder / name, json.dumps({"epoch": epoch, "seed": config["run"]["seed"]}))
    write(
        folder / "summary.json", json.dumps({"top1": 90.0 + config["run"]["seed"], "sparsity_true": 0.5, "seconds": 1})
    )
    status(folder, "done", 0, epoch)
    return 0


def status(folder: Path, state: str, code: int | None, epoch: int, reason: str = "") -> None:
    said = {"state": state, "exit_code": code, "reason": reason, "epoch": epoch, "step": 10 * epoch}
    write(folder / "status.json", json.dumps(said))


def go_wrong(folder: Path, orders: dict, epoch: int) -> None:
    """Die or end, if this is the epoch."""
    died = folder / f"died-{epoch}"
    if (code := orders.get("die", {}).get(str(epoch))) is not None and not died.exists():
        died.touch()
        leave(code)
    if (code := orders.get("end", {}).get(str(epoch))) is not None:
        if code == 3:
            status(folder, "diverged", 3, epoch, "the loss is no finite number any more")
        leave(code)


def leave(code: int) -> None:
    if code < 0:
        os.kill(os.getpid(), -code)
    print(f"this is the end, with {code}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
