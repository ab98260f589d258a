"""Trials as Slurm jobs, by submitit: one job a trial; preempted or out of time, it goes back into the queue."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from campfire.errors import UsageError
from campfire.extras import need
from campfire.sweep.engines.base import run

DEFAULTS = {"timeout_min": 24 * 60, "cpus_per_task": 1}


class Run:
    """What a job does; submitit calls ``checkpoint`` when the job must go, and queues what it returns."""

    def __init__(self, folder: str):
        self.folder = folder

    def __call__(self) -> int:
        return run(self.folder)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Run(self.folder))


class Job:
    """A Slurm job."""

    def __init__(self, job: Any):
        self._job, self.name, self._stopped = job, str(job.job_id), False

    def poll(self) -> int | None:
        if not self._job.done(force_check=self._stopped):  # else Slurm is asked every ten minutes
            return None
        try:
            return self._job.result()
        except Exception:  # of many kinds: whatever it was, there is no exit code
            return 1

    def stop(self) -> None:
        self._job.cancel()
        self._stopped = True


class Slurm:
    """Slurm's queue; options are those of `submitit.AutoExecutor`, and ``cluster``: ``local`` runs the jobs here.

    Raises:
        UsageError: there is no Slurm here, or an option is unknown.
    """

    jobs = None
    poll = 2.0

    def __init__(self, folder: Path, jobs: int | None, options: Mapping[str, Any]):
        (submitit,), given = need("this engine", "sweep", "submitit", error=UsageError), dict(options)
        cluster = given.pop("cluster", "slurm")
        try:
            self._executor = submitit.AutoExecutor(folder / "slurm", cluster=cluster)
            self._executor.update_parameters(name=folder.name, **{**DEFAULTS, **given})
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise UsageError(f"Slurm cannot be used with {given}: {' '.join(str(error).split())}") from error

    def start(self, folder: Path) -> Job:
        """A job for this run directory."""
        return Job(self._executor.submit(Run(str(folder))))

    def find(self, name: str) -> Job | None:
        """The job of this number, if it still runs or waits."""
        inner = self._executor._executor
        job = inner.job_class(folder=inner.folder, job_id=name, tasks=[0])
        return None if job.done(force_check=True) else Job(job)

    def close(self) -> None:
        """Jobs need nothing from here."""
