"""The tensor kernel: closed-form gradients and Adam for a chunk of networks at once, on any device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from weightspace._activation import activation
from weightspace._spec import NetSpec
from weightspace.fitting.kernels._problem import BETA1, BETA2, CHECK_EVERY, EPS, ChunkResult, FitProblem

PAD = 64
"""Buffers are padded to a multiple of this, which is a whole number of vectors on every machine."""


def fit_tensor(problem: FitProblem) -> ChunkResult:
    """Fit a chunk of networks with batched tensor operations.

    On one thread of a CPU the numbers of a network do not depend on the other networks of the chunk.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.fitting._init import initial_weights
        >>> start = initial_weights(ws.siren(2, 8, 1), torch.arange(3), torch.zeros(3, dtype=torch.int64), seed=0)
        >>> done = fit_tensor(FitProblem(start, ws.signals.grid(4, 4), torch.zeros(3, 16, 1), steps=20, lr=1e-3))
        >>> done.flat.shape, done.steps.tolist()
        (torch.Size([3, 33]), [20, 20, 20])
    """
    start = problem.start
    flat = torch.empty_like(start.flat)
    steps = torch.full((len(start),), problem.steps, dtype=torch.int64)
    everyone = _paired(torch.arange(len(start), device=start.device))
    running = _Running.begin(problem, everyone)
    for step in range(problem.steps):
        if problem.stopped:
            break
        residual = running.residual(problem, step)
        if problem.target_mse is not None and step % CHECK_EVERY == 0:
            done = _mean_square(residual) <= problem.target_mse
            if bool(done.any()):
                flat[running.rows[done]] = running.params.flat()[done]
                steps[running.rows[done].cpu()] = step
                if bool(done.all()):
                    break
                running = running.survivors(problem, ~done, step)
                residual = running.network_pass.forward()
        running.update(residual, problem.lr, step + 1)
    flat[running.rows] = running.params.flat()
    return ChunkResult(flat, mean_squared_error(problem, flat), steps)


def mean_squared_error(problem: FitProblem, flat: Tensor) -> Tensor:
    """Return the error of every network over all points, ``[batch]``, in parts of as many points as a step has."""
    spec, batch = problem.start.spec, len(flat)
    rows = _paired(torch.arange(batch, device=flat.device))
    params = Blocks.of(spec, flat[rows])
    coords, targets = problem.all_points(rows)
    total, size = targets.shape[1], problem.points_per_step
    out = torch.zeros(len(rows), dtype=targets.dtype, device=targets.device)
    for first in range(0, total, size):
        part = targets[:, first : first + size]
        residual = _Pass(spec, coords[..., first : first + size, :], part, params).forward()
        out += _mean_square(residual) * (part.shape[1] / total)
    return out[:batch]


class Blocks:
    """The parameters of a chunk, each parameter contiguous, so that every matrix product is one batched call.

    Args:
        spec: the networks.
        batch: their number.
        like: a tensor of their dtype and device.
    """

    def __init__(self, spec: NetSpec, batch: int, like: Tensor) -> None:
        self.buffer = torch.zeros(batch * spec.num_params, dtype=like.dtype, device=like.device)
        self.spec = spec
        self.part = {
            name: self.buffer[batch * s.start : batch * s.stop].view(batch, *spec.shape(name))
            for name, s in spec.slices.items()
        }

    @classmethod
    def of(cls, spec: NetSpec, flat: Tensor) -> Blocks:
        """Return the parameters of networks ``flat [batch, param]``."""
        out = cls(spec, len(flat), flat)
        for name, s in spec.slices.items():
            out.part[name].copy_(flat[:, s].view(out.part[name].shape))
        return out

    def flat(self) -> Tensor:
        """Return ``[batch, param]``, each network contiguous."""
        return torch.cat([self.part[p.name].flatten(1) for p in self.spec.params], dim=1)

    def __getitem__(self, rows: Tensor) -> Blocks:
        out = Blocks(self.spec, len(rows), self.buffer)
        for name, value in self.part.items():
            torch.index_select(value, 0, rows, out=out.part[name])
        return out


@dataclass(frozen=True, eq=False)
class _Running:
    """The networks of a chunk that are still being fitted.

    Args:
        rows: their places in the chunk, int64 ``[running]``.
        params: their parameters.
        first_moment: Adam's mean of their gradients.
        second_moment: Adam's mean of the squares of their gradients.
        network_pass: buffers of the forward and the backward pass over them.
    """

    rows: Tensor
    params: Blocks
    first_moment: Blocks
    second_moment: Blocks
    network_pass: _Pass

    @classmethod
    def begin(cls, problem: FitProblem, rows: Tensor) -> _Running:
        """Return all networks at the start of the fit."""
        spec, params = problem.start.spec, Blocks.of(problem.start.spec, problem.start.flat[rows])
        first, second = (Blocks(spec, len(rows), params.buffer) for _ in range(2))
        return cls(rows, params, first, second, _Pass(spec, *problem.points_of_step(rows, 0), params))

    def survivors(self, problem: FitProblem, alive: Tensor, step: int) -> _Running:
        """Return the networks where ``alive`` (bool ``[running]``) is true, looking at the points of ``step``."""
        chosen = _paired(alive.nonzero()[:, 0])
        rows, params = self.rows[chosen], self.params[chosen]
        network_pass = _Pass(problem.start.spec, *problem.points_of_step(rows, step), params)
        return _Running(rows, params, self.first_moment[chosen], self.second_moment[chosen], network_pass)

    def residual(self, problem: FitProblem, step: int) -> Tensor:
        """Return the networks' outputs minus their targets at the points of one step, ``[running, out, point]``."""
        if problem.points is not None and step > 0:
            self.network_pass.look_at(*problem.points_of_step(self.rows, step))
        return self.network_pass.forward()

    def update(self, residual: Tensor, lr: float, count: int) -> None:
        """Take Adam's step number ``count``, from 1."""
        self.network_pass.backward(residual)
        p, g, m, v = (b.buffer for b in (self.params, self.network_pass.grads, self.first_moment, self.second_moment))
        m.lerp_(g, 1 - BETA1)
        v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
        root = torch.sqrt(v, out=self.network_pass.scratch)
        root.div_(math.sqrt(1 - BETA2**count)).add_(EPS)
        p.addcdiv_(m, root, value=-lr / (1 - BETA1**count))


class _Pass:
    """Buffers, and the fused forward and backward pass over networks. Activations are ``[batch, neuron, point]``."""

    def __init__(self, spec: NetSpec, coords: Tensor, targets: Tensor, params: Blocks) -> None:
        self.spec, self.params = spec, params
        batch, self.points = targets.shape[0], coords.shape[-2]
        self.x = coords.transpose(-1, -2).expand(batch, -1, -1).contiguous()
        self.targets = (targets.transpose(1, 2) - spec.output_shift).contiguous()
        self.grads = Blocks(spec, batch, params.buffer)
        self.scratch = torch.empty_like(params.buffer)
        self.z, self.h, self.padded_z = {}, {spec.input: self.x}, {}
        for layer in spec.layers:
            shape = (batch, spec.axis(layer.produces).size, self.points)
            self.z[layer.produces], self.padded_z[layer.produces] = _padded(shape, self.x)
            self.h[layer.produces] = torch.empty_like(self.z[layer.produces])

    def look_at(self, coords: Tensor, targets: Tensor) -> None:
        """Take other points, as many as before: ``coords [batch, point, in]``, ``targets [batch, point, out]``."""
        self.x.copy_(coords.transpose(1, 2))
        torch.sub(targets.transpose(1, 2), self.spec.output_shift, out=self.targets)

    def forward(self) -> Tensor:
        """Fill ``h`` (activations) and ``z`` (their derivatives); return the residual ``[batch, out, point]``."""
        for layer in self.spec.layers:
            axis = self.spec.axis(layer.produces)
            z, h = self.z[layer.produces], self.h[layer.produces]
            sine = axis.activation == "sine"
            gain = axis.omega if sine else 1.0
            w = self.params.part[layer.weight]
            if layer.bias is None:
                torch.bmm(w, self.h[layer.consumes], out=z)
                z.mul_(gain)
            else:
                b = self.params.part[layer.bias].unsqueeze(2)
                torch.baddbmm(b, w, self.h[layer.consumes], beta=gain, alpha=gain, out=z)
            if sine:  # z holds omega * z; the backward product multiplies the derivative by omega
                torch.sin(z, out=h)
                torch.cos(z, out=z)
            elif axis.activation is not None:
                row, padded = activation(axis.activation), self.padded_z[layer.produces]
                h.copy_(row.forward(padded, axis.omega)[: z.numel()].view_as(z))
                padded.copy_(row.derivative(padded, axis.omega))
            elif layer.produces != self.spec.output:
                h.copy_(z)
        return torch.sub(self.z[self.spec.output], self.targets, out=self.h[self.spec.output])

    def backward(self, residual: Tensor) -> None:
        """Fill ``grads`` with the gradients of every network's mean squared error."""
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
            torch.baddbmm(below, w, delta, beta=0.0, alpha=gain, out=below)  # h is not needed again, so reuse it
            delta = below if axis.activation is None else below.mul_(self.z[layer.consumes])


def _padded(shape: tuple[int, int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return an empty tensor, and the flat buffer that it begins, which ends at a full vector.

    Some elementwise functions of PyTorch round the last elements of a buffer, fewer than a vector has, differently from
    the others. In a padded buffer no number of a network is among them, so that it does not depend on the chunk's size.
    """
    size = math.prod(shape)
    buffer = torch.zeros(-(-size // PAD) * PAD, dtype=like.dtype, device=like.device)
    return buffer[:size].view(shape), buffer


def _paired(rows: Tensor) -> Tensor:
    """Repeat a lone row, because BLAS rounds one matrix differently from the matrices of a batch."""
    return rows.repeat(2) if len(rows) == 1 else rows


def _mean_square(residual: Tensor) -> Tensor:
    """Return the mean squared error of every network, ``[batch]``."""
    return residual.square().flatten(1).mean(1)
