"""Helpers that tests share, one definition each: ``from _helpers import generator, networks, points``.

- ``generator(seed)``: a seeded ``torch.Generator``;
- ``networks(spec, batch, seed, dtype)``: random ``Weights`` that compute something, whatever the activations;
- ``normal_networks(spec, batch, seed, dtype)``: ``Weights`` whose entries are standard normal;
- ``labelled(spec, count, ...)``: ``Networks`` with labels that can be learned from the weights;
- ``write_small_zoo(path, ...)``: a zoo of such networks on disk, with train and test splits;
- ``points(dims, count, ...)``: points of the input, uniform in [-1, 1];
- ``attention_spec()``: a stream, and attention with three heads and biases;
- ``linked_spec(a, b)``: two hidden axes that read each other;
- ``run_command(capsys, *arguments)``: exit code, stdout and stderr of a command.

Fixtures (``device``, ``dtype``, ``conv_spec``) are in ``conftest.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import weightspace as ws

ROOMS = (
    *("adapters", "align", "bench", "checkpoints", "datasets", "fitting", "models", "report", "signals", "testing"),
    *("training", "transforms", "zoo"),
)
"""The rooms that users reach as ``ws.<room>``."""


def generator(seed: int = 0) -> torch.Generator:
    """Make a seeded generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def networks(
    spec: ws.NetSpec,
    batch: int = 6,
    seed: int = 1,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ws.Weights:
    """Draw networks with pre-activations of order one."""
    return ws.testing.random_weights(spec, batch, generator=generator(seed), dtype=dtype, device=device)


def normal_networks(spec: ws.NetSpec, batch: int = 6, seed: int = 1, dtype: torch.dtype = torch.float64) -> ws.Weights:
    """Draw networks whose weights and biases are all standard normal."""
    return ws.Weights(torch.randn(batch, spec.num_params, generator=generator(seed), dtype=dtype), spec)


def labelled(spec: ws.NetSpec, count: int, *, seed: int = 0, classes: int = 3, known: bool = True) -> ws.Networks:
    """Draw networks whose weights lie around their label; without labels where they are not ``known``."""
    labels = torch.arange(count) % classes
    flat = (labels[:, None] - 1.0) + torch.randn(count, spec.num_params, generator=generator(seed))
    return ws.Networks(ws.Weights(flat, spec), label=labels if known else None)


def write_small_zoo(
    path: Path,
    spec: ws.NetSpec,
    *,
    train: int = 60,
    test: int = 30,
    seed: int = 0,
    known: bool = True,
    **settings: Any,
) -> ws.Zoo:
    """Write a zoo of :func:`labelled` networks; without a test split where ``test`` is 0."""
    splits = {"train": labelled(spec, train, seed=seed, known=known)}
    if test:
        splits["test"] = labelled(spec, test, seed=seed + 1, known=known)
    return ws.zoo.write_zoo(path, splits, **settings)


def points(
    dims: int, count: int = 11, seed: int = 3, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw points of the input, ``[count, dims]``, uniform in [-1, 1]."""
    return (2 * torch.rand(count, dims, generator=generator(seed), dtype=dtype) - 1).to(device)


def linked_spec(a: ws.Axis, b: ws.Axis) -> ws.NetSpec:
    """Make a spec of two inputs and outputs in which ``b`` reads ``a``, and ``a`` reads ``b`` and the inputs."""
    return ws.NetSpec(
        (ws.Axis("in", 2), a, b, ws.Axis("out", 2)),
        (
            ws.Param("in_a", (a.name, "in")),
            ws.Param("a_bias", (a.name,), "bias"),
            ws.Param("a_b", (b.name, a.name)),
            ws.Param("b_a", (a.name, b.name)),
            ws.Param("b_bias", (b.name,), "bias"),
            ws.Param("a_out", ("out", a.name)),
        ),
    )


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run a command in this process, and return its exit code and what it wrote to stdout and to stderr."""
    from weightspace import cli  # late, so that tests without commands import none

    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def attention_spec() -> ws.NetSpec:
    """Make a stream of six that three heads read: of size four for queries and keys, of size two for values."""
    axes = [ws.Axis("in", 5), ws.Axis("h1", 6, "other"), ws.Axis("out", 3)]
    axes += [ws.Axis("qk", 12, "linear", blocks=3), ws.Axis("vo", 6, "linear", blocks=3, follows="qk")]
    params = [ws.Param("e.weight", ("h1", "in"))]
    for name, axis in (("q", "qk"), ("k", "qk"), ("v", "vo")):
        params.append(ws.Param(f"{name}.weight", (axis, "h1"), dual=name == "k"))
        params.append(ws.Param(f"{name}.bias", (axis,), "bias", dual=name == "k"))
    params += [ws.Param("o.weight", ("h1", "vo")), ws.Param("f.weight", ("out", "h1"))]
    return ws.NetSpec(tuple(axes), tuple(params))


def attend(weights: ws.Weights, x: Tensor) -> Tensor:
    """Compute the networks of :func:`attention_spec` on ``[token, 5]``: ``[batch, token, 3]``."""
    w = dict(weights.items())
    x = x @ w["e.weight"].mT
    made = [x @ w[f"{n}.weight"].mT + w[f"{n}.bias"][:, None] for n in "qkv"]
    q, k, v = (z.unflatten(2, (3, -1)).transpose(1, 2) for z in made)
    y = (q @ k.mT).softmax(-1) @ v
    return (x + y.transpose(1, 2).flatten(2) @ w["o.weight"].mT) @ w["f.weight"].mT
