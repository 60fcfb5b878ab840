"""The methods of fitting a batch of SIRENs that ``benchmarks.fit`` compares: same starts, same losses, same Adam.

Each is written as a user of its library would write it, and may use all cores: chunks go to one thread for each core,
or to processes.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

import weightspace as ws
from weightspace.fitting._fit import _one_thread_each

LR = 5e-4
WORKERS = os.cpu_count() or 1
Method = Callable[[Tensor, Tensor, Tensor, ws.NetSpec, int], Tensor]
"""(starts [network, param], coords, targets, spec, steps) -> fitted [network, param]."""


def network_loss(flat: Tensor, coords: Tensor, target: Tensor, spec: ws.NetSpec) -> Tensor:
    """Return the mean squared error of one network, as a user of torch.func would write it."""
    h = coords
    for layer in spec.layers:
        weight = flat[spec.slices[layer.weight]].view(spec.shape(layer.weight))
        h = h @ weight.T + flat[spec.slices[layer.bias or ""]]
        if spec.axis(layer.produces).hidden:
            h = torch.sin(spec.axis(layer.produces).omega * h)
    return ((h + spec.output_shift - target) ** 2).mean()


def adam(flat: Tensor, gradient: Tensor, m: Tensor, v: Tensor, step: int) -> Tensor:
    """Return the parameters after one step of Adam; the moments change in place."""
    m.lerp_(gradient, 0.1)
    v.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    denominator = (v / (1 - 0.999**step)).sqrt_().add_(1e-8)
    return flat.addcdiv_(m, denominator, value=-LR / (1 - 0.9**step))


def by_vmap(chunk: int) -> Method:
    """Fit by ``torch.func.vmap(grad(loss))`` and elementwise Adam, in chunks of networks; one chunk for each core."""

    def method(start: Tensor, coords: Tensor, targets: Tensor, spec: ws.NetSpec, steps: int) -> Tensor:
        gradient = vmap(grad(lambda flat, target: network_loss(flat, coords, target, spec)))

        def one(rows: slice) -> Tensor:
            flat = start[rows].clone()
            m, v = torch.zeros_like(flat), torch.zeros_like(flat)
            for step in range(1, steps + 1):
                flat = adam(flat, gradient(flat, targets[rows]), m, v, step)
            return flat

        return _chunks(one, len(start), chunk)

    return method


def by_kernel(kernel: str, device: str = "cpu") -> Method:
    """Fit by the library, whose own initial weights are the starts given here."""

    def method(start: Tensor, coords: Tensor, targets: Tensor, spec: ws.NetSpec, steps: int) -> Tensor:
        result = ws.fit(coords, targets, spec, steps=steps, lr=LR, kernel=kernel, device=device)  # pyright: ignore
        return result.weights.flat

    return method


def _alone(start: Tensor, coords: Tensor, targets: Tensor, spec: ws.NetSpec, steps: int) -> Tensor:
    """Fit by autograd and torch.optim.Adam, network after network."""
    torch.set_num_threads(1)
    out = []
    for n in range(len(start)):
        flat = start[n].clone().requires_grad_()
        optimizer = torch.optim.Adam([flat], lr=LR)
        for _ in range(steps):
            optimizer.zero_grad()
            network_loss(flat, coords, targets[n], spec).backward()
            optimizer.step()
        out.append(flat.detach())
    return torch.stack(out)


@contextmanager
def one_at_a_time() -> Iterator[Method]:
    """Fit by that loop in one process for each core, started and warm before anything is timed."""
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        spec = ws.siren(2, 4, 1)
        small = (torch.zeros(1, spec.num_params), torch.zeros(4, 2), torch.zeros(1, 4, 1), spec, 2)
        list(pool.map(_unpacked, [small] * (4 * WORKERS)))

        def method(start: Tensor, coords: Tensor, targets: Tensor, spec: ws.NetSpec, steps: int) -> Tensor:
            share = -(-len(start) // WORKERS)
            parts = [slice(i, i + share) for i in range(0, len(start), share)]
            return torch.cat(list(pool.map(_unpacked, [(start[p], coords, targets[p], spec, steps) for p in parts])))

        yield method


def _unpacked(arguments: tuple) -> Tensor:
    return _alone(*arguments)


def by_jax(chunk: int, *, mapped: bool) -> Method:
    """Fit by JAX: ``scan`` over steps inside ``jit``, networks of a chunk by ``vmap`` or ``lax.map``."""
    import jax
    import jax.numpy as jnp

    compiled = {}

    def build(spec: ws.NetSpec, steps: int):
        def loss(flat, coords, target):
            h = coords
            for layer in spec.layers:
                weight = flat[spec.slices[layer.weight]].reshape(spec.shape(layer.weight))
                h = h @ weight.T + flat[spec.slices[layer.bias or ""]]
                if spec.axis(layer.produces).hidden:
                    h = jnp.sin(spec.axis(layer.produces).omega * h)
            return jnp.mean((h + spec.output_shift - target) ** 2)

        def fit_one(flat, coords, target):
            def step(carry, count):
                flat, m, v = carry
                g = jax.grad(loss)(flat, coords, target)
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                flat = flat - LR / (1 - 0.9**count) * m / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)
                return (flat, m, v), None

            zero = jnp.zeros_like(flat)
            counts = jnp.arange(1, steps + 1, dtype=jnp.float32)
            return jax.lax.scan(step, (flat, zero, zero), counts)[0][0]

        if mapped:
            return jax.jit(
                lambda flat, coords, target: jax.lax.map(lambda z: fit_one(z[0], coords, z[1]), (flat, target))
            )
        return jax.jit(jax.vmap(fit_one, in_axes=(0, None, 0)))

    def method(start: Tensor, coords: Tensor, targets: Tensor, spec: ws.NetSpec, steps: int) -> Tensor:
        run = compiled.setdefault((spec, steps), build(spec, steps))
        x = coords.numpy()

        def one(rows: slice) -> Tensor:
            return torch.from_numpy(np.array(run(start[rows].numpy(), x, targets[rows].numpy())))

        return _chunks(one, len(start), chunk)

    return method


def _chunks(one: Callable[[slice], Tensor], count: int, size: int) -> Tensor:
    with _one_thread_each(), ThreadPoolExecutor(WORKERS) as pool:
        return torch.cat(list(pool.map(one, [slice(i, i + size) for i in range(0, count, size)])))
