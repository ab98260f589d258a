"""Trials as Ray tasks: Ray decides on which machine of its cluster, and starts those of a lost machine elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from campfire.errors import UnknownName, UsageError
from campfire.extras import need
from campfire.sweep.engines.base import run

OPTIONS = {"address": None, "cpus": 1, "gpus": 0, "retries": 3}


class Task:
    """A task of Ray's."""

    name = ""

    def __init__(self, ray: Any, reference: Any):
        self._ray, self._reference = ray, reference

    def poll(self) -> int | None:
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return self._ray.get(self._reference)
        except self._ray.exceptions.TaskCancelledError:
            return 75
        except self._ray.exceptions.RayError:
            return 1

    def stop(self) -> None:
        self._ray.cancel(self._reference)


class Ray:
    """A Ray cluster: the one at ``address``, that of ``RAY_ADDRESS``, or one of this machine alone, for this sweep.

    A trial takes ``cpus`` and ``gpus`` of one machine. All machines need the package, and the sweep's directory and
    data under the same paths.
    """

    jobs = None
    poll = 1.0

    def __init__(self, folder: Path, jobs: int | None, options: Mapping[str, Any]):
        for name in options:
            if name not in OPTIONS:
                raise UnknownName("option of engine 'ray'", name, OPTIONS)
        given = {**OPTIONS, **options}
        self._ray, self._own = _connect(given["address"])
        resources = {"num_cpus": given["cpus"], "num_gpus": given["gpus"]}
        self._task = self._ray.remote(max_retries=given["retries"], **resources)(run)

    def start(self, folder: Path) -> Task:
        """A task for this run directory."""
        return Task(self._ray, self._task.remote(str(folder)))

    def find(self, name: str) -> None:
        """None: Ray ends tasks with the program that asked for them."""

    def close(self) -> None:
        """Leave the cluster."""
        if self._own:
            self._ray.shutdown()


def _connect(address: str | None) -> tuple[Any, bool]:
    (ray,) = need("this engine", "sweep", "ray", error=UsageError)
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            include_dashboard=False if address is None else None,
        )
    except Exception as error:  # Ray raises bare ones, too
        where = "here" if address is None else f"at {address!r}"
        raise UsageError(f"Ray cannot be used {where} ({error}); a cluster begins with ray start --head") from error
    return ray, True
