"""Executors, which fit the shards of a zoo in this process or on a Ray cluster; a task fits and writes one shard."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from weightspace._checks import number, whole_number
from weightspace._weights import Weights
from weightspace.fitting._config import FitConfig
from weightspace.fitting._fit import OnProgress, fit
from weightspace.signals import SignalSet

if TYPE_CHECKING:
    from weightspace.zoo._format import Shard
    from weightspace.zoo._target import ShardTarget

K = TypeVar("K")
T = TypeVar("T")
WAIT = 1.0
NAME = "name"
"""The column of a zoo that holds the names of signals, such as their files."""


def versions() -> dict[str, str]:
    """Return the versions that must be the same on every machine for the bits to be the same."""
    return {name: _version(name) for name in ("weightspace", "torch", "numpy", "numba")}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@dataclass(frozen=True, eq=False)
class ShardTask:
    """A shard to fit and to write, complete, so that any machine that sees the zoo's folder can do it.

    Args:
        index: number of the shard in the zoo's plan.
        target: the planned shard, which knows how it is written.
        data: the signals of the shard.
        config: the recipe.
        device: the device to compute on.
        workers: cores to use, see :func:`weightspace.fit`.
        first_view: the first of the views to fit, up to ``config.views``.
        start: one network that all start from, or ``None``.
        versions: of the packages on the machine that planned it.
    """

    index: int
    target: ShardTarget
    data: SignalSet
    config: FitConfig
    device: str
    workers: int | None
    first_view: int = 0
    start: Weights | None = None
    versions: dict[str, str] | None = None

    def run(self, on_progress: OnProgress | None = None) -> tuple[Shard, Tensor]:
        """Fit the networks and write the shard, and return its finished record and the PSNR of its networks.

        Raises:
            RuntimeError: on a machine with other versions than the planning one.
            OSError: if the disk is full, or this machine does not see the zoo's folder.
        """
        if self.versions is not None and self.versions != (own := versions()):
            raise RuntimeError(
                f"expected {self.versions} on every machine, as where the fit was started, got {own}; "
                "install the same versions"
            )
        networks = fit(
            *self.data.signals(),
            self.target.spec,
            config=self.config,
            sources=torch.as_tensor(self.data.sources),
            device=self.device,
            workers=self.workers,
            start=self.start,
            first_view=self.first_view,
            on_progress=on_progress,
        )
        views = self.config.views - self.first_view
        if NAME in self.target.further and self.data.names is not None:
            networks = networks.replace(columns={NAME: np.repeat(self.data.names, views)})
        if self.data.labels is not None:
            networks = networks.replace(label=torch.as_tensor(self.data.labels).repeat_interleave(views))
        assert networks.psnr is not None
        return self.target.write(networks), networks.psnr


class Executor(abc.ABC):
    """An object that runs the tasks of a zoo; your own one is a class with this one method.

    Example:
        >>> from weightspace.fitting import Executor, RayExecutor
        >>> isinstance(RayExecutor(), Executor)
        True
    """

    @abc.abstractmethod
    def run(self, tasks: Iterable[ShardTask], on_progress: OnProgress) -> Iterator[tuple[int, Shard]]:
        """Run all tasks, in any order.

        Args:
            tasks: made one by one as they are asked for: take no more of them than can be worked on.
            on_progress: called with the networks done and in all of a shard, and the PSNR of those done last.

        Returns:
            An iterator of the shards' indices and finished records, as they come. When it is closed early, tasks that
            are still running are given up.
        """


@dataclass(frozen=True)
class LocalExecutor(Executor):
    """An executor that fits one shard after the other in this process, each on ``workers`` cores."""

    def run(self, tasks: Iterable[ShardTask], on_progress: OnProgress) -> Iterator[tuple[int, Shard]]:
        for task in tasks:
            yield task.index, task.run(on_progress)[0]


@dataclass(frozen=True)
class RayExecutor(Executor):
    """An executor whose tasks run on a Ray cluster; each fits a shard and writes it itself.

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

    def run(self, tasks: Iterable[ShardTask], on_progress: OnProgress) -> Iterator[tuple[int, Shard]]:
        own, workers = versions(), max(1, int(self.cpus))
        sent = ((task.index, (replace(task, workers=workers, versions=own),)) for task in tasks)
        for index, (shard, psnr) in self.call(_run, sent, "shard {} could not be fitted"):
            on_progress(len(psnr), len(psnr), torch.tensor(psnr))
            yield index, shard

    def call(
        self, function: Callable[..., T], arguments: Iterable[tuple[K, tuple]], lost: str
    ) -> Iterator[tuple[K, T]]:
        """Call a function on the cluster, once for each key; yield keys and results as they come.

        Args:
            function: that runs there.
            arguments: keys and arguments, made one by one as they can be worked on.
            lost: the message for a call whose retries are spent, with a place for the key.
        """
        ray = _ray()
        with _connected(ray, self.address):
            lasting = {"max_calls": 0}  # a process that used a GPU serves the next task too
            again = {"max_retries": self.retries, "retry_exceptions": [OSError]}
            remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, **lasting, **again)(function)
            if not self.wait:
                self._check_fits(ray)
            todo, running = iter(arguments), dict[Any, K]()
            try:
                while True:
                    for key, own in islice(todo, max(0, self._room(ray) - len(running))):
                        running[remote.remote(*own)] = key
                    if not running:
                        return
                    for done in ray.wait(list(running), num_returns=1, timeout=WAIT)[0]:
                        key = running.pop(done)
                        yield key, _result(ray, done, lost.format(key))
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
        """Return how many shards to hand out, for the cluster as it is now."""
        if self.in_flight is not None:
            return self.in_flight
        there = ray.cluster_resources()
        fits = [int(there.get(name, 0) // share) for name, share in (("CPU", self.cpus), ("GPU", self.gpus)) if share]
        return max(2, 2 * min(fits))


def _run(task: ShardTask) -> tuple[Shard, Any]:
    """Run a task on a worker, whose result travels as an array."""
    shard, psnr = task.run()
    return shard, psnr.numpy()


def _result(ray: Any, done: Any, lost: str) -> Any:
    """Return the result of a call, or raise what it has raised itself."""
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # the error of the task itself
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"{lost}, its retries are spent: {error}; run again") from error


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError('the Ray executor needs Ray: pip install "weightspace[ray]"') from error
    return ray


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to a cluster: the one that the process is connected to, else a new one that ends with the fit."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {} if address is not None else {"include_dashboard": False}
    own = address is None and "RAY_ADDRESS" not in os.environ
    with _loopback_only(ray) if own else nullcontext():
        # "local": without an address Ray would join a cluster that somebody started on this machine
        ray.init(address="local" if own else address, log_to_driver=False, logging_level="WARNING", **options)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _loopback_only(ray: Any) -> Iterator[None]:
    """Let a cluster that Ray starts listen to this machine alone, as Ray itself does on macOS and Windows.

    The address 127.0.0.1 would not do: Ray replaces it by one that others can reach, and binds to all interfaces.
    """
    switch, constants = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", ray._private.ray_constants
    told, known = os.environ.get(switch), constants.ENABLE_RAY_CLUSTER
    os.environ[switch], constants.ENABLE_RAY_CLUSTER = "0", False  # for Ray's processes, and for this one
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = known
        os.environ.pop(switch)
        if told is not None:
            os.environ[switch] = told


def executor_named(name: str | Executor, *, device: torch.device, workers: int | None) -> Executor:
    """Return the executor of a name: ``"local"``, or ``"ray"``, whose tasks have ``workers`` cores and on CUDA a GPU.

    Raises:
        ValueError: for another name.
    """
    if isinstance(name, Executor):
        return name
    if name == "local":
        return LocalExecutor()
    if name == "ray":
        return RayExecutor(cpus=workers or 1, gpus=1 if device.type == "cuda" else 0)
    raise ValueError(f"executor: expected 'local', 'ray' or an Executor, got {name!r}")
