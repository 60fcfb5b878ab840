"""Fitting on many machines: the shards' jobs as Ray tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from weightspace._checks import number, whole_number
from weightspace.fitting._executors import Executor, ShardJob, Told, versions
from weightspace.zoo._format import Shard

WAIT = 1.0


@dataclass(frozen=True)
class RayExecutor(Executor):
    """Shards as tasks of a Ray cluster: each task fits a shard and writes it itself.

    Every machine must have the same versions of weightspace, torch, NumPy and numba, and see the zoo's folder under the
    same path: a local folder on one machine, a network file system on several. The driver alone writes the manifest,
    once, at the end; a driver that died is followed by one that takes over the shards that were written.

    Args:
        address: of a running cluster, as for ``ray.init``; by default the cluster that the process is connected to, or
            that ``RAY_ADDRESS`` names, or else one of this machine alone, started for the fit and ended after it.
        cpus: cores of a task; whole ones are the workers of its fit.
        gpus: GPUs of a task, with ``device="cuda"``; a fraction lets tasks share one.
        in_flight: shards handed out at a time, whose signals Ray holds in memory; by default twice as many as the
            cluster can work on.
        retries: how often a shard is begun again whose worker or machine died, or that could not be written.
        wait: whether to wait for a machine that is large enough for a task, as a cluster that grows on demand starts it
            later; otherwise it must be there.

    Raises:
        TypeError, ValueError: for numbers out of range.
        ImportError: where Ray is not installed, when it is used.

    Example:
        >>> RayExecutor(cpus=2, in_flight=16).retries
        3
    """

    address: str | None = None
    cpus: float = 1
    gpus: float = 0
    in_flight: int | None = None
    retries: int = 3
    wait: bool = False

    def __post_init__(self) -> None:
        number("cpus", self.cpus, "a positive number", low=2**-10)
        number("gpus", self.gpus, "a number >= 0", low=0)
        whole_number("retries", self.retries, 0)
        if self.in_flight is not None:
            whole_number("in_flight", self.in_flight)

    def run(self, jobs: Iterable[ShardJob], on_done: Told) -> Iterator[tuple[int, Shard]]:
        ray = _ray()
        with _connected(ray, self.address):
            kept = {"max_calls": 0}  # a process that used a GPU serves the next task too
            again = {"max_retries": self.retries, "retry_exceptions": [OSError]}
            task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, **kept, **again)(_run)
            if not self.wait:
                self._check_fits(ray)
            todo, running, own = iter(jobs), dict[Any, int](), versions()
            try:
                while True:
                    for job in _next(todo, self._room(ray) - len(running)):
                        sent = replace(job, workers=max(1, int(self.cpus)), versions=own)
                        running[task.remote(sent)] = job.index
                    if not running:
                        return
                    for done in ray.wait(list(running), num_returns=1, timeout=WAIT)[0]:
                        index = running.pop(done)
                        shard, psnr = _result(ray, done, index)
                        on_done(len(psnr), torch.tensor(psnr))
                        yield index, shard
            finally:
                for left in running:
                    ray.cancel(left, force=True)

    def _check_fits(self, ray: Any) -> None:
        """Raise ``ValueError`` if no machine is large enough for a task: it would wait for ever."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus for node in nodes):
            there = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise ValueError(
                f"expected a machine with {self.cpus:g} CPUs and {self.gpus:g} GPUs in the cluster, got none: {there}; "
                "ask for less, or start the machines first (wait=True waits for them)"
            )

    def _room(self, ray: Any) -> int:
        """How many shards to hand out, as the cluster stands now."""
        if self.in_flight is not None:
            return self.in_flight
        there = ray.cluster_resources()
        fits = [int(there.get(name, 0) // share) for name, share in (("CPU", self.cpus), ("GPU", self.gpus)) if share]
        return max(2, 2 * min(fits))


def _run(job: ShardJob) -> tuple[Shard, Any]:
    shard, psnr = job.run()
    return shard, psnr.numpy()


def _next(jobs: Iterator[ShardJob], count: int) -> Iterator[ShardJob]:
    for _ in range(count):
        if (job := next(jobs, None)) is None:
            return
        yield job


def _result(ray: Any, done: Any, index: int) -> tuple[Shard, Any]:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # what the task itself raised
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"shard {index} could not be fitted, its retries are spent: {error}; run again") from error


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError('the Ray executor needs Ray: pip install "weightspace[ray]"') from error
    return ray


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to a cluster: the one that is there, else an own one that ends with the fit."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {} if address is not None else {"include_dashboard": False}
    ray.init(address=address, log_to_driver=False, logging_level="WARNING", **options)
    try:
        yield
    finally:
        ray.shutdown()
