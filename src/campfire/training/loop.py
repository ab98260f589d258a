"""The training loop: parts that learn, epoch by epoch, and the record of it."""

import contextlib
import time
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from campfire import data, report
from campfire.compress import decompress_
from campfire.config import to_yaml
from campfire.data.mixup import mix
from campfire.errors import Diverged
from campfire.training import checkpoint, environment, fallback
from campfire.training.build import Parts
from campfire.training.compressing import compress
from campfire.training.evaluation import Accuracy, autocast, correct, measure
from campfire.training.optim import learning_rate
from campfire.training.outcome import Result, conclude
from campfire.training.progress import Reporter, announce, line, log, log_in
from campfire.training.run_directory import RunDirectory
from campfire.training.signals import Preempted, StopSignals
from campfire.training.state import Position, capture


class Training:
    """A run under way: parts that learn, the position they have reached, and the directory that records it."""

    def __init__(self, parts: Parts, position: Position, folder: RunDirectory, console: Console | None):
        self.parts, self.at, self.folder = parts, position, folder
        self.config = parts.config
        self.reporter = Reporter(console, self.config.run.log_interval)
        self.stop = StopSignals()
        self.forward = self._forward()
        self.compressed = False
        self.batches, self.steps = parts.batches, parts.steps_per_epoch
        position.sums = position.sums.to(parts.device)

    def run(self) -> Result:
        """All epochs that are left, then the final files."""
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.folder.write_text("config.yaml", to_yaml(self.config))
        self.folder.write_json("env.json", environment.describe(self.config, self.parts.device))
        self.folder.write_history(self.at.history)
        with log_in(self.folder.path / "log.txt"), self.stop:
            try:
                self._status("running")
                announce(self.parts, self.at, self.folder.path)
                self._compress()
                while self.at.epoch < self.config.optim.epochs:
                    self._train_epoch()
                    self._close_epoch(self._measure())
                self._decompress()
                summary = conclude(self.parts, self.at, self.folder)
            except Preempted as error:
                self._save()
                self._status("preempted", error.exit_code, str(error))
                raise
            except BaseException as error:
                code = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1)
                with contextlib.suppress(OSError):  # the disk may be full: then that is what is raised
                    self._status(
                        "diverged" if isinstance(error, Diverged) else "failed", code, str(error) or repr(error)
                    )
                raise
            self._status("done", 0)
            report.write_run_report(self.folder.path)
        return Result(summary, self.parts.final, self.folder.path)

    def _forward(self) -> nn.Module:
        return torch.compile(self.parts.model) if self.config.compute.compile else self.parts.model  # pyright: ignore

    def _compress(self) -> None:
        """Go on with the survivors only, if that was asked for and the masks are final: also when a run is resumed."""
        pruner = self.parts.pruner
        if not self.config.pruning.compress or self.compressed or pruner is None or not pruner.frozen:
            return
        self.at.plan = compress(self.parts, self.at.plan)
        self.forward, self.compressed = self._forward(), True

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
        stream = data.batches(
            parts.data, "train", config.data.batch_size, epoch=at.epoch, seed=config.run.seed, train=True,
            start_batch=at.batch, device=parts.device, workers=config.data.workers,
            channels_last=config.compute.channels_last,
        )  # fmt: skip
        with self.reporter.epoch(at.epoch, config.optim.epochs, self.steps) as shown:
            began = time.perf_counter() - at.seconds
            for x, y in stream:
                self._backward(x, y, min(accumulate, self.batches - at.batch // accumulate * accumulate))
                at.batch += 1
                if at.batch % accumulate and at.batch < self.batches:
                    continue
                self._step()
                at.seconds = time.perf_counter() - began
                shown.step(-(-at.batch // accumulate), at.sums)
                due = config.run.recovery_interval and at.step % config.run.recovery_interval == 0
                if due or self.stop.received:
                    self._check_finite()
                if due:
                    self._save()
                self.stop.check()

    def _backward(self, x: Tensor, y: Tensor, group: int) -> None:
        """Add the gradients of one batch out of a ``group`` of batches."""
        config, parts = self.config, self.parts
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
        parts.scaler.scale(total / group).backward()
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
        optim, pruner = self.config.optim, self.parts.pruner
        if pruner is None:
            return learning_rate(optim, step, self.steps)
        passed, length = pruner.lr_time(optim.epochs, step / self.steps)
        return learning_rate(optim.model_copy(update={"epochs": length}), round(passed * self.steps), self.steps)

    def _check_finite(self) -> None:
        if not torch.isfinite(self.at.sums[0]):
            raise Diverged(
                f"the loss is no finite number any more (epoch {self.at.epoch}, step {self.at.step}); "
                "lower --lr, or raise --warmup-epochs, or set --clip-grad"
            )

    def _measure(self) -> Accuracy:
        self._check_finite()
        return measure(self.parts.final, self.parts.data, self.config, self.parts.device, poll=self.stop.check)

    def _close_epoch(self, accuracy: Accuracy) -> None:
        """Record the epoch, and keep it in a checkpoint."""
        parts, at, config = self.parts, self.at, self.config
        at.history.append(self._record(accuracy))
        log.info("%s", line(at.history[-1], config.optim.epochs))
        at.next_epoch()
        self.folder.write_history(at.history)
        if parts.at_target and accuracy.top1 > at.best:
            at.best = accuracy.top1
            checkpoint.save(self.folder.best, capture(parts, at))
        if at.epoch in (config.run.keep_epochs or ()):  # before the newest, so that none is missing behind it
            checkpoint.save(self.folder.kept(at.epoch), capture(parts, at))
        if at.epoch % config.run.checkpoint_interval == 0 or at.epoch == config.optim.epochs:
            self._save()
        self._status("running")
        self.stop.check()

    def _record(self, accuracy: Accuracy) -> dict[str, Any]:
        at, pruner = self.at, self.parts.pruner
        loss, right, images = at.sums.tolist()
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
        }

    def _save(self) -> None:
        fallback.save(self.folder, capture(self.parts, self.at))

    def _status(self, state: str, exit_code: int | None = None, reason: str = "") -> None:
        self.folder.write_status(state, exit_code, reason, self.at.epoch, self.at.step)
