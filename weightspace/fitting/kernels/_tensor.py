"""The batched fitting engine: closed-form gradients and elementwise Adam on a chunk of independent networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from weightspace._activation import activation
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.fitting.kernels._minibatch import draw_points

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
CHECK_EVERY = 10
LANES = 64


@dataclass(frozen=True, eq=False)
class ChunkResult:
    """What became of one chunk: ``flat [batch, param]``, final ``mse [batch]``, ``steps [batch]`` taken."""

    flat: Tensor
    mse: Tensor
    steps: Tensor


class _Blocks:
    """Parameters of a chunk, parameter by parameter contiguous, so that every matrix product is one batched call."""

    def __init__(self, spec: NetSpec, batch: int, like: Tensor) -> None:
        self.buffer = torch.zeros(batch * spec.num_params, dtype=like.dtype, device=like.device)
        self.spec, self.batch = spec, batch
        self.part = {
            name: self.buffer[batch * s.start : batch * s.stop].view(batch, *spec.shape(name))
            for name, s in spec.slices.items()
        }

    def load(self, flat: Tensor) -> None:
        for name, s in self.spec.slices.items():
            self.part[name].copy_(flat[:, s].view(self.part[name].shape))

    def flat(self) -> Tensor:
        return torch.cat([self.part[p.name].flatten(1) for p in self.spec.params], dim=1)

    def keep(self, rows: Tensor) -> _Blocks:
        out = _Blocks(self.spec, len(rows), self.buffer)
        for name, value in self.part.items():
            torch.index_select(value, 0, rows, out=out.part[name])
        return out


class _Step:
    """Buffers and the fused forward and backward pass for one chunk size. Layout ``[batch, neuron, point]``."""

    def __init__(self, spec: NetSpec, coords: Tensor, targets: Tensor, params: _Blocks) -> None:
        self.spec, self.params = spec, params
        self.batch, self.points = targets.shape[0], coords.shape[-2]
        self.x = coords.transpose(-1, -2).expand(self.batch, -1, -1).contiguous()
        self.targets = (targets.transpose(1, 2) - spec.output_shift).contiguous()
        self.grads = _Blocks(spec, self.batch, params.buffer)
        self.z, self.h, self.whole = {}, {spec.input: self.x}, {}
        for layer in spec.layers:
            shape = (self.batch, spec.axis(layer.produces).size, self.points)
            self.z[layer.produces], self.whole[layer.produces] = _padded(shape, self.x)
            self.h[layer.produces] = torch.empty_like(self.z[layer.produces])

    def look_at(self, coords: Tensor, targets: Tensor) -> None:
        """Other points, as many as before: ``coords [batch, point, in]``, ``targets [batch, point, out]``."""
        self.x.copy_(coords.transpose(1, 2))
        torch.sub(targets.transpose(1, 2), self.spec.output_shift, out=self.targets)

    def forward(self) -> Tensor:
        """Fill ``h`` (activations) and ``z`` (their derivatives); return the residual ``[batch, out, point]``."""
        for layer in self.spec.layers:
            axis = self.spec.axis(layer.produces)
            z, h = self.z[layer.produces], self.h[layer.produces]
            periodic = axis.activation == "sine"
            gain = axis.omega if periodic else 1.0
            w = self.params.part[layer.weight]
            if layer.bias is None:
                torch.bmm(w, self.h[layer.consumes], out=z)
                z.mul_(gain)
            else:
                b = self.params.part[layer.bias].unsqueeze(2)
                torch.baddbmm(b, w, self.h[layer.consumes], beta=gain, alpha=gain, out=z)
            if periodic:  # z holds omega * z; the factor omega of the derivative is put into the backward product
                torch.sin(z, out=h)
                torch.cos(z, out=z)
            elif axis.activation is not None:
                row, whole = activation(axis.activation), self.whole[layer.produces]
                h.copy_(row.forward(whole, axis.omega)[: z.numel()].view_as(z))
                whole.copy_(row.derivative(whole, axis.omega))
            elif layer.produces != self.spec.output:
                h.copy_(z)
        return torch.sub(self.z[self.spec.output], self.targets, out=self.h[self.spec.output])

    def mse(self) -> Tensor:
        residual = self.forward()
        return residual.square().flatten(1).mean(1)

    def backward(self, residual: Tensor) -> None:
        """Gradients of every network's mean squared error with respect to its own parameters."""
        delta = residual.mul_(2.0 / (self.points * residual.shape[1]))
        for layer in reversed(self.spec.layers):
            if layer.bias is not None:
                torch.sum(delta, dim=2, out=self.grads.part[layer.bias])
            below = self.h[layer.consumes]
            torch.bmm(delta, below.transpose(1, 2), out=self.grads.part[layer.weight])
            if layer.consumes == self.spec.input:
                break
            axis = self.spec.axis(layer.consumes)
            gain = axis.omega if axis.activation == "sine" else 1.0
            w = self.params.part[layer.weight].transpose(1, 2)
            torch.baddbmm(below, w, delta, beta=0.0, alpha=gain, out=below)  # h is not needed again: reuse it
            delta = below if axis.activation is None else below.mul_(self.z[layer.consumes])


def _padded(shape: tuple[int, int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor, and the flat buffer with room to the next full vector that it lies in.

    Some elementwise kernels round the last elements of a buffer, fewer than one vector, otherwise than the others. In a
    padded buffer no network's number is ever among them, so that it does not depend on the chunk's size.
    """
    size = math.prod(shape)
    whole = torch.zeros(-(-size // LANES) * LANES, dtype=like.dtype, device=like.device)
    return whole[:size].view(shape), whole


def _paired(rows: Tensor) -> Tensor:
    """A lone row twice: for one matrix alone BLAS takes another path, with another rounding, than for a batch."""
    return rows.repeat(2) if len(rows) == 1 else rows


def fit_chunk(
    start: Weights,
    coords: Tensor,
    targets: Tensor,
    *,
    steps: int,
    lr: float,
    target_mse: float | None = None,
    points: int | None = None,
    keys: Tensor | None = None,
    on_step: Callable[[int], None] | None = None,
) -> ChunkResult:
    r"""Fit one chunk of networks, each to its own signal, by Adam.

    .. math:: \min_{w_i} \; \frac{1}{M c} \sum_m \lVert f(w_i)(x_m) - y_{im} \rVert^2

    Every network has its own loss, moments and end: nothing is shared but the matrix products' calls, and on one thread
    the numbers do not depend on what else is in the chunk.

    Args:
        start: ``batch`` networks to start from.
        coords: ``[point, in]``, or ``[batch, point, in]``, of the networks' dtype and device.
        targets: ``[batch, point, out]``, likewise.
        steps: Adam steps.
        lr: step size.
        target_mse: a network whose mean squared error is at or below this leaves the chunk; looked at every ten steps.
        points: points of each step, drawn anew for every network and step; all of them where None.
        keys: int64 ``[batch]``, what each network's points are drawn from; needed with ``points``.
        on_step: called after each step with its number.

    Returns:
        The fitted networks, their mean squared errors and the steps they took.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.fitting import initial_weights
        >>> start = initial_weights(ws.siren(2, 8, 1), torch.arange(3), torch.zeros(3, dtype=torch.int64), seed=0)
        >>> done = fit_chunk(start, ws.signals.grid(4, 4), torch.zeros(3, 16, 1), steps=20, lr=1e-3)
        >>> done.flat.shape, done.steps.tolist()
        (torch.Size([3, 33]), [20, 20, 20])

    Reference:
        Kingma and Ba, *Adam*, 2015, Algorithm 1.
    """
    spec, batch = start.spec, len(start)
    final = torch.empty_like(start.flat)
    taken = torch.full((batch,), steps, dtype=torch.int64)
    everyone = rows = _paired(torch.arange(batch, device=start.device))
    data = _Data(coords, targets, points, keys)
    params = _Blocks(spec, len(rows), start.flat)
    params.load(start.flat[rows])
    m, v = (_Blocks(spec, len(rows), start.flat) for _ in range(2))
    step = _Step(spec, *data.of(rows, 0), params)
    scratch = torch.empty_like(params.buffer)
    for count in range(1, steps + 1):
        if points is not None and count > 1:
            step.look_at(*data.of(rows, count - 1))
        residual = step.forward()
        if target_mse is not None and (count - 1) % CHECK_EVERY == 0:
            done = residual.square().flatten(1).mean(1) <= target_mse
            if bool(done.any()):
                final[rows[done]] = params.flat()[done]
                taken[rows[done].cpu()] = count - 1
                alive = _paired((~done).nonzero()[:, 0])
                rows = rows[alive]
                if not len(rows):
                    break
                params, m, v = params.keep(alive), m.keep(alive), v.keep(alive)
                step = _Step(spec, *data.of(rows, count - 1), params)
                scratch = torch.empty_like(params.buffer)
                residual = step.forward()
        step.backward(residual)
        _adam(params.buffer, step.grads.buffer, m.buffer, v.buffer, scratch, lr=lr, count=count)
        if on_step is not None:
            on_step(count)
    if len(rows):
        final[rows] = params.flat()
    last = _Blocks(spec, len(everyone), final)
    last.load(final[everyone])
    return ChunkResult(final, data.mse(spec, last, everyone)[:batch], taken)


@dataclass(frozen=True, eq=False)
class _Data:
    """The signals of a chunk, and what of them a step looks at."""

    coords: Tensor
    targets: Tensor
    points: int | None
    keys: Tensor | None

    def of(self, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Coordinates and targets of some networks at one step."""
        coords = self.coords if self.coords.ndim == 2 else self.coords[rows]
        targets = self.targets[rows]
        if self.points is None or self.keys is None:
            return coords, targets
        index = draw_points(self.keys[rows], step, self.points, self.targets.shape[1])
        if coords.ndim == 2:
            return coords[index], _pick(targets, index)
        return _pick(coords, index), _pick(targets, index)

    def mse(self, spec: NetSpec, params: _Blocks, rows: Tensor) -> Tensor:
        """Over all points, a part at a time where steps see a part."""
        coords, targets = self.coords if self.coords.ndim == 2 else self.coords[rows], self.targets[rows]
        total, size = targets.shape[1], self.points or targets.shape[1]
        out = torch.zeros(len(rows), dtype=targets.dtype, device=targets.device)
        for start in range(0, total, size):
            part = targets[:, start : start + size]
            out += _Step(spec, coords[..., start : start + size, :], part, params).mse() * (part.shape[1] / total)
        return out


def _pick(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))


def _adam(p: Tensor, g: Tensor, m: Tensor, v: Tensor, scratch: Tensor, *, lr: float, count: int) -> None:
    m.lerp_(g, 1 - BETA1)
    v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
    torch.sqrt(v, out=scratch)
    scratch.div_(math.sqrt(1 - BETA2**count)).add_(EPS)
    p.addcdiv_(m, scratch, value=-lr / (1 - BETA1**count))
