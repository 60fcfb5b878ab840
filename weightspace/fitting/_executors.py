"""Who fits the shards of a zoo: this process, or whoever takes a shard's job. A job writes its shard itself."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from weightspace._weights import Weights
from weightspace.fitting._fit import FitConfig, fit
from weightspace.signals import SignalSet
from weightspace.zoo._format import Shard
from weightspace.zoo._order import ShardOrder

Told = Callable[[int, Tensor], None]


def versions() -> dict[str, str]:
    """What must be the same on every machine for the bits to be the same."""
    return {name: _version(name) for name in ("weightspace", "torch", "numpy", "numba")}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@dataclass(frozen=True, eq=False)
class ShardJob:
    """One shard to fit and to write; whole, so that any machine that sees the zoo's folder can do it.

    Args:
        index: number of the shard in the zoo's plan.
        order: where and how to write it.
        config: the recipe.
        data: the shard's signals.
        device: where to compute.
        workers: cores to use, see :func:`weightspace.fitting.fit`.
        first_view: the first of the views to fit, up to ``config.views``.
        start: one network that all start from, or ``None``.
        versions: of the packages on the machine that planned it.
    """

    index: int
    order: ShardOrder
    config: FitConfig
    data: SignalSet
    device: str
    workers: int | None
    first_view: int = 0
    start: Weights | None = None
    versions: dict[str, str] | None = None

    def run(self, on_done: Told | None = None) -> tuple[Shard, Tensor]:
        """Fit the networks and write the shard; its finished record, and the PSNR of its networks.

        Raises:
            RuntimeError: on a machine with other versions than the planning one.
            OSError: if the disk is full, or this machine does not see the zoo's folder.
        """
        if self.versions is not None and self.versions != (own := versions()):
            raise RuntimeError(
                f"expected {self.versions} on every machine, as where the fit was started, got {own}; "
                "install the same versions"
            )
        coords, targets = self.data.signals()
        result = fit(
            coords,
            targets,
            self.order.spec,
            config=self.config,
            sources=torch.as_tensor(self.data.sources),
            device=self.device,
            workers=self.workers,
            start=self.start,
            first_view=self.first_view,
            on_done=on_done,
        )
        labels = None
        if self.data.labels is not None:
            views = self.config.views - self.first_view
            labels = torch.as_tensor(self.data.labels).repeat_interleave(views)
        tensors = self.order.tensors(result.weights, result.source, labels, result.view, result.psnr)
        return self.order.store(tensors), tensors["psnr"]


class Executor(abc.ABC):
    """Runs the jobs of a zoo; an own one is a class with this one method.

    Example:
        >>> from weightspace.fitting import Executor, LocalExecutor
        >>> isinstance(LocalExecutor(), Executor)
        True
    """

    @abc.abstractmethod
    def run(self, jobs: Iterable[ShardJob], on_done: Told) -> Iterator[tuple[int, Shard]]:
        """Run all jobs, in any order.

        Args:
            jobs: made one by one as they are asked for: take no more of them than can be worked on.
            on_done: to be told of networks done, how many and their PSNR.

        Returns:
            an iterator of the shards' indices and finished records, as they come. When it is closed early, what is
            still running is given up.
        """


@dataclass(frozen=True)
class LocalExecutor(Executor):
    """One shard after the other in this process, each on ``workers`` cores."""

    def run(self, jobs: Iterable[ShardJob], on_done: Told) -> Iterator[tuple[int, Shard]]:
        for job in jobs:
            yield job.index, job.run(on_done)[0]


def executor_named(name: str | Executor, *, device: torch.device, workers: int | None) -> Executor:
    """The executor of a name: ``"local"``, or ``"ray"`` with a task for each ``workers`` cores and one GPU on CUDA.

    Raises:
        ValueError: for another name.
    """
    if isinstance(name, Executor):
        return name
    if name == "local":
        return LocalExecutor()
    if name == "ray":
        from weightspace.fitting._ray import RayExecutor

        return RayExecutor(cpus=workers or 1, gpus=1 if device.type == "cuda" else 0)
    raise ValueError(f"executor: expected 'local', 'ray' or an Executor, got {name!r}")
