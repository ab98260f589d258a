"""The training loop: parts that learn, epoch by epoch, and the record of it."""

import contextlib
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from campfire import report
from campfire.compress import decompress_
from campfire.config import to_yaml
from campfire.data.mixup import mix
from campfire.errors import CampfireError, Diverged
from campfire.training import checkpoint, divergence, environment, fallback
from campfire.training.build import Parts
from campfire.training.compressing import compress
from campfire.training.evaluation import Accuracy, autocast, correct, measure
from campfire.training.optim import learning_rate
from campfire.training.outcome import Result, conclude
from campfire.training.progress import Reporter, announce, line, log, log_in, silence
from campfire.training.ranks import LostRank, is_loss
from campfire.training.run_directory import RunDirectory
from campfire.training.signals import Interrupted, Preempted, StopSignals
from campfire.training.state import Position, capture
from campfire.training.throughput import Waiting


class Training:
    """A run under way: parts that learn, the position they have reached, and the directory that records it.

    Every rank runs this very loop on its share of the images. What they exchange: gradients, whether to stop, whether the
    loss is finite, and the sums behind the numbers of an epoch.
    """

    def __init__(self, parts: Parts, position: Position, folder: RunDirectory, console: Console | None):
        self.parts, self.at, self.folder = parts, position, folder
        self.config, self.ranks = parts.config, parts.ranks
        self.reporter = Reporter(console, self.config.run.log_interval)
        self.stop = StopSignals()
        self._wrap()
        self.compressed = False
        self.batches, self.steps = parts.batches, parts.steps_per_epoch
        self.usual = min(self.config.data.batch_size, len(parts.data.train) / self.ranks.world)  # images in a batch
        position.sums = position.sums.to(parts.device)

    def run(self) -> Result:
        """All epochs that are left, then the final files."""
        with log_in(self.folder.path / "log.txt") if self.folder.writes else silence(), self.stop:
            try:
                self._describe()
                self._status("running")
                announce(self.parts, self.at, self.folder.path)
                self._compress()
                while self.at.epoch < self.config.optim.epochs:
                    self._train_epoch()
                    self._close_epoch(self._measure())
                self._decompress()
                summary = conclude(self.parts, self.at, self.folder)
                self._status("done", 0)
                self._report()
            except BaseException as error:
                self._fail(error)
        return Result(summary, self.parts.final, self.folder.path)

    def _describe(self) -> None:
        self.folder.write_text("config.yaml", to_yaml(self.config))
        self.folder.write_json(
            "env.json", environment.describe(self.config, self.parts.data, self.parts.device, self.ranks.world)
        )
        self.folder.write_history(self.at.history)

    def _report(self) -> None:
        """A run whose numbers are all there is done, whatever becomes of the page that shows them."""
        try:
            if self.folder.writes:
                report.write_run_report(self.folder.path)
        except (CampfireError, OSError) as error:
            log.warning("warning: no report.md: %s; campfire report %s writes it", error, self.folder.path)

    def _fail(self, error: BaseException) -> NoReturn:
        """Say how the run ended, and that."""
        if self.ranks.several and is_loss(error):
            error = LostRank(f"another process of the run is gone; continue with --resume ({error})")
        states = {Preempted: "preempted", Interrupted: "preempted", Diverged: "diverged"}
        if isinstance(error, Preempted):
            try:
                self._save()
            except Exception as worse:  # as of a full disk
                error = worse
        code = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1)
        with contextlib.suppress(OSError):  # the disk may be full
            self._status(states.get(type(error), "failed"), code, str(error) or repr(error))
        raise error

    def _wrap(self) -> None:
        """What is called in training: the model, as one of several where there are, and compiled if that was asked for."""
        self.replica = self.ranks.replica(self.parts.model, self.parts.device)
        self.forward = torch.compile(self.replica) if self.config.compute.compile else self.replica

    def _compress(self) -> None:
        """Go on with the survivors only, if that was asked for and the masks are final: also when a run is resumed."""
        pruner = self.parts.pruner
        if not self.config.pruning.compress or self.compressed or pruner is None or not pruner.frozen:
            return
        self.forward = self.replica = self.parts.model
        self.at.plan = compress(self.parts, self.at.plan)
        self._wrap()
        self.compressed = True

    def _decompress(self) -> None:
        """What is kept, and given back, is the ordinary model."""
        if self.compressed:
            decompress_(self.parts.model, self.parts.optimizer, self.parts.pruner)

    def _train_epoch(self) -> None:
        parts, at, config = self.parts, self.at, self.config
        accumulate = config.optim.grad_accum_steps
        if parts.pruner is not None and at.batch == 0:
            parts.pruner.set_epoch(at.epoch)
        parts.model.train()
        stream = Waiting(parts.stream(at.epoch, at.batch))
        with self.reporter.epoch(at.epoch, config.optim.epochs, self.steps) as shown:
            began, waited = time.perf_counter() - at.seconds, at.waited
            for x, y in stream:
                group = min(accumulate, self.batches - at.batch // accumulate * accumulate)
                last = at.batch % accumulate == group - 1
                with contextlib.nullcontext() if last else self.ranks.apart(self.replica):
                    self._backward(x, y, group)
                at.batch += 1
                if not last:
                    continue
                self._step()
                at.seconds, at.waited = time.perf_counter() - began, waited + stream.seconds
                shown.step(-(-at.batch // accumulate), at, self.ranks.world)
                due = config.run.recovery_interval and at.step % config.run.recovery_interval == 0
                if self.stop.agree(self.ranks.highest) or due:
                    self._check_finite()
                if due:
                    self._save()
                self.stop.check()

    def _backward(self, x: Tensor, y: Tensor, group: int) -> None:
        """Add the gradients of one batch out of a ``group`` of batches."""
        config, parts = self.config, self.parts
        part = group * self.usual / len(y)  # a batch that is the only one may not be shared evenly
        x, others, share = self._mixed(x, y)
        with autocast(config.compute, parts.device):
            logits = self.forward(x).float()
            loss = F.cross_entropy(logits, y, label_smoothing=config.optim.smoothing)
            if share < 1:
                mixed_in = F.cross_entropy(logits, others, label_smoothing=config.optim.smoothing)
                loss = share * loss + (1 - share) * mixed_in
        total = loss
        if parts.pruner is not None:
            parts.pruner.batch(loss, x)
            total = loss + parts.pruner.penalty()
        parts.scaler.scale(total / part).backward()
        count = torch.full((), len(y), device=parts.device)
        self.at.sums += torch.stack([total.detach() * count, correct(logits.detach(), y), count])

    def _mixed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
        """The batch, mixed with itself if that is due, the labels of what was mixed in, and the share of the images proper."""
        at, optim = self.at, self.config.optim
        if not optim.mixup or at.epoch + at.batch / self.batches < (optim.mixup_start or 0.0):
            return x, y, 1.0
        return mix(x, y, optim.mixup, seed=self.config.run.seed, epoch=at.epoch, batch=at.batch)

    def _step(self) -> None:
        parts, at, optim = self.parts, self.at, self.config.optim
        if parts.device.type == "cpu" or at.step % self.config.run.log_interval == 0:  # elsewhere a look is a wait
            self._check_finite()
        for group in parts.optimizer.param_groups:
            group["lr"] = self._learning_rate(at.step)
        if optim.clip_grad is not None:
            parts.scaler.unscale_(parts.optimizer)
            nn.utils.clip_grad_norm_(parts.model.parameters(), optim.clip_grad)
        parts.scaler.step(parts.optimizer)
        parts.scaler.update()
        parts.optimizer.zero_grad(set_to_none=True)
        at.step += 1
        if parts.ema is not None:
            parts.ema.update_parameters(parts.model)
            if parts.pruner is not None:
                parts.pruner.apply(parts.ema.module)
        self._compress()

    def _learning_rate(self, step: int) -> float:
        """That of a step; a method may rewind it."""
        optim, pruner = self.parts.optim, self.parts.pruner
        if pruner is None:
            return learning_rate(optim, step, self.steps)
        passed, length = pruner.lr_time(optim.epochs, step / self.steps)
        return learning_rate(optim.model_copy(update={"epochs": length}), round(passed * self.steps), self.steps)

    def _check_finite(self) -> None:
        divergence.check(float(self.at.sums[0]), self.at, self.ranks)

    def _measure(self) -> Accuracy:
        self._check_finite()
        parts = self.parts
        found = measure(parts.final, parts.data, self.config, parts.device, poll=self._poll, ranks=self.ranks)
        divergence.check_tested(found.loss, parts.final, self.at, self.ranks)
        return found

    def _poll(self) -> None:
        self.stop.agree(self.ranks.highest)
        self.stop.check()

    def _close_epoch(self, accuracy: Accuracy) -> None:
        """Record the epoch, and keep it in a checkpoint."""
        parts, at, config = self.parts, self.at, self.config
        at.history.append(self._record(accuracy))
        log.info("%s", line(at.history[-1], config.optim.epochs))
        at.next_epoch()
        self.folder.write_history(at.history)
        if parts.at_target and accuracy.top1 > at.best:
            at.best = accuracy.top1
            self._save(self.folder.best)
        if at.epoch in (config.run.keep_epochs or ()):  # before the newest, so that none is missing behind it
            self._save(self.folder.kept(at.epoch))
        if at.epoch % config.run.checkpoint_interval == 0 or at.epoch == config.optim.epochs:
            self._save()
        self._status("running")
        self._poll()

    def _record(self, accuracy: Accuracy) -> dict[str, Any]:
        at, pruner = self.at, self.parts.pruner
        loss, right, images = self.ranks.total(at.sums).tolist()
        return {
            "epoch": at.epoch,
            "step": at.step,
            "train_loss": loss / images,
            "train_top1": 100 * right / images,
            "eval_loss": accuracy.loss,
            "eval_top1": accuracy.top1,
            "eval_top5": accuracy.top5,
            "lr": self._learning_rate(at.step - 1),
            "sparsity_requested": 0.0 if pruner is None else pruner.report().requested,
            "sparsity_true": 0.0 if pruner is None else pruner.sparsity,
            "seconds": at.seconds,
            "images_per_second": images / max(at.seconds, 1e-9),  # a clock may stand still
            "data_wait": at.waited / max(at.seconds, 1e-9),
        }

    def _save(self, kept: Path | None = None) -> None:
        """Write the newest checkpoint, or one to keep."""
        state = capture(self.parts, self.at)
        with self.ranks.together():
            if self.folder.writes and kept is not None:
                checkpoint.save(kept, state)
            elif self.folder.writes:
                fallback.save(self.folder, state, self.config.run.keep_checkpoints)

    def _status(self, state: str, exit_code: int | None = None, reason: str = "") -> None:
        self.folder.write_status(state, exit_code, reason, self.at.epoch, self.at.step)
