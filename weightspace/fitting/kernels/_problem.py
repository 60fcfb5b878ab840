"""The problem that the three kernels solve, and their result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from weightspace._activation import activation
from weightspace._spec import Axis, NetSpec
from weightspace._weights import Weights
from weightspace.fitting.kernels._minibatch import draw_points

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""Constants of Adam: decay of the first and the second moment, and the term that keeps the quotient finite."""
CHECK_EVERY = 10
"""Steps from one comparison with ``target_mse`` to the next."""


@dataclass(frozen=True, eq=False)
class FitProblem:
    r"""A chunk of networks to fit by Adam, each to its own signal.

    .. math:: \min_{w_i} \; \frac{1}{M c} \sum_m \lVert f(w_i)(x_m) - y_{im} \rVert^2

    Every network has its own loss, its own moments and its own end. Networks of a chunk share nothing but calls.

    Args:
        start: the ``batch`` networks to start from. The CPU and CUDA kernels take float32, the tensor kernel any dtype.
        coords: ``[point, in]``, or ``[batch, point, in]``, of the networks' dtype and device.
        targets: ``[batch, point, out]``, likewise.
        steps: the number of Adam steps.
        lr: the step size of Adam.
        target_mse: a network stops once its mean squared error is at or below this, which is looked at every ten steps;
            ``None`` for never.
        points: the number of points in each step, drawn anew for every network and step; ``None`` for all points.
        keys: int64 ``[batch]``, from which the points of each network are drawn; needed with ``points``.
        stop: uint8 ``[1]``. Once another thread sets it to 1, a kernel returns soon, with a result of no use.

    Reference:
        Kingma and Ba, *Adam: A Method for Stochastic Optimization*, 2015, Algorithm 1.
    """

    start: Weights
    coords: Tensor
    targets: Tensor
    steps: int
    lr: float
    target_mse: float | None = None
    points: int | None = None
    keys: Tensor | None = None
    stop: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=np.uint8))

    def __post_init__(self) -> None:
        assert (self.points is None) == (self.keys is None), "points and keys belong together"

    @property
    def points_per_step(self) -> int:
        """The number of points that each step looks at."""
        return self.targets.shape[1] if self.points is None else self.points

    @property
    def stopped(self) -> bool:
        """Whether another thread asked the kernel to return."""
        return bool(self.stop[0])

    def to(self, device: torch.device) -> FitProblem:
        """Return the problem with its tensors on a device."""
        return replace(
            self,
            start=self.start.to(device),
            coords=self.coords.to(device),
            targets=self.targets.to(device),
            keys=None if self.keys is None else self.keys.to(device),
        )

    def all_points(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coordinates (``[point, in]`` where networks share them) and targets of some networks."""
        return self.coords if self.coords.ndim == 2 else self.coords[rows], self.targets[rows]

    def points_of_step(self, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the coordinates and targets that some networks see in one step, counted from 0."""
        coords, targets = self.all_points(rows)
        if self.points is None or self.keys is None:
            return coords, targets
        index = draw_points(self.keys[rows], step, self.points, targets.shape[1])
        return coords[index] if coords.ndim == 2 else _picked(coords, index), _picked(targets, index)


@dataclass(frozen=True, eq=False)
class ChunkResult:
    """The fitted networks of one chunk.

    Args:
        flat: their weights, ``[batch, param]``, on the device of the problem.
        mse: their mean squared errors over all points, ``[batch]``, likewise.
        steps: the Adam steps that each took, int64 ``[batch]``, on the CPU.
    """

    flat: Tensor
    mse: Tensor
    steps: Tensor


def produced_axes(spec: NetSpec) -> list[Axis]:
    """Return the axes that the layers of a network produce, in their order; the last one is the output."""
    return [spec.axis(layer.produces) for layer in spec.layers]


def kernel_number(axis: Axis) -> int | None:
    """Return the number by which compiled kernels know an axis' activation, or ``None`` where they do not have it.

    Example:
        >>> kernel_number(Axis("out", 1)), kernel_number(Axis("h1", 8, "sine")), kernel_number(Axis("h1", 8, "gelu"))
        (0, 1, None)
    """
    return 0 if axis.activation is None else activation(axis.activation).kernel


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """Return ``values[b, index[b, p]]`` for every network ``b``."""
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))
