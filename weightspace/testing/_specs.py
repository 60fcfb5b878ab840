"""The small networks that contract suites run on by default."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from weightspace._architectures import mlp, siren
from weightspace._spec import Axis, NetSpec, Param


@cache
def kinds() -> tuple[NetSpec, ...]:
    """Return small networks of every kind that transforms tell apart: inputs, activations, biases, hidden axes."""
    return (
        siren(2, 7, 5, 1, omega=(3.0, 2.0)),
        siren(3, 6, 1, omega=2.0),
        siren(1, 4, 3, 1, omega=2.0),
        mlp(2, 6, 5, 3, activation="relu"),
        mlp(2, 6, 5, 1, activation="tanh"),
        mlp(2, 6, 5, 1, activation=("cosine", "gaussian")),
        mlp(4, 5, 2, activation="gelu"),
        siren(2, 5, 4, 1, omega=2.0, bias=False),
        mlp(2, 12),
        mlp(2, 6, 3, 1, activation=("relu", "linear")),
    )


@cache
def chains() -> tuple[NetSpec, ...]:
    """Return small networks with every kind of symmetry that the activation table knows, alone and mixed."""
    waves = replace(
        mlp(2, 4, 5, 1), axes=(Axis("in", 2), Axis("h1", 4, "cosine", 3.0), Axis("h2", 5, "sine", 2.0), Axis("out", 1))
    )
    return (
        siren(2, 5, 4, 1),
        mlp(2, 5, 4, 1, activation="relu"),
        mlp(2, 5, 4, 1, activation="tanh"),
        mlp(2, 5, 4, 1, activation=("gaussian", "relu")),
        mlp(2, 4, 3, 5, 2, activation=("relu", "tanh", "gelu")),
        waves,
        mlp(2, 5, 3, 1, activation=("tanh", "linear")),
    )


@cache
def convolutional() -> NetSpec:
    """Return a small network of convolutions and a linear layer whose columns stay unfolded."""
    axes = (
        Axis("in", 3),
        Axis("h1", 5, "relu"),
        Axis("h2", 4, "sine", 2.0),
        Axis("k", 3),
        Axis("pos", 6),
        Axis("out", 2),
    )
    weights = {"conv1": ("h1", "in", "k", "k"), "conv2": ("h2", "h1", "k", "k"), "fc": ("out", "h2", "pos")}
    params = []
    for name, where in weights.items():
        params += [Param(f"{name}.weight", where), Param(f"{name}.bias", where[:1], "bias")]
    return NetSpec(axes, tuple(params))
