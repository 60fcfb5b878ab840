"""What transforms ask of specs, and the checks at their doors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from weightspace._checks import check_generator, check_tensor, whole_number
from weightspace._spec import NetSpec
from weightspace._weights import Weights, check_same_spec, check_weights


@dataclass(frozen=True)
class Need:
    """One thing that a transform asks of a spec.

    Args:
        holds: whether the spec has it.
        expected: what is expected, in words.
        got: what the spec has instead, in words.
        remedy: what to do about it.
    """

    holds: Callable[[NetSpec], bool]
    expected: str
    got: Callable[[NetSpec], str]
    remedy: str


@lru_cache(maxsize=4096)
def holds(need: Need, spec: NetSpec) -> bool:
    return need.holds(spec)


def check_input(weights: Weights, generator: torch.Generator) -> None:
    """Refuse what is not a batch of networks, or no generator."""
    check_weights("weights", weights)
    if weights.flat.ndim != 2:
        raise ValueError(f"weights: expected [batch, param], got features of shape {list(weights.flat.shape)}")
    check_generator(generator)


def check_pool(weights: Weights, pool: Weights) -> None:
    """Refuse partners that cannot be mixed with the networks."""
    if not isinstance(pool, Weights):
        raise TypeError(f"pool: expected Weights or (Weights, labels), got {type(pool).__name__}")
    check_same_spec(weights, pool)
    if pool.flat.ndim != 2 or not len(pool):
        raise ValueError(f"pool: expected [pool, param] with at least one network, got {list(pool.flat.shape)}")
    if pool.dtype != weights.dtype or pool.device != weights.device:
        raise ValueError(
            f"pool: expected {weights.dtype} on {weights.device} as the weights, got {pool.dtype} on {pool.device}; "
            "move it with pool.to(...)"
        )


def soft_labels(labels: Tensor, num_classes: int | None, weights: Weights, *, name: str = "labels") -> Tensor:
    """Labels as ``[batch, class]`` on the weights' device.

    Raises:
        TypeError: for labels that are no tensor, or a ``num_classes`` that is no whole number.
        ValueError: for labels of another length, out of range or not finite, or int64 labels without ``num_classes``.
    """
    check_tensor(name, labels)
    if num_classes is not None:
        whole_number("num_classes", num_classes)
    hard = not labels.is_floating_point()
    if labels.ndim != (1 if hard else 2) or len(labels) != len(weights):
        raise ValueError(
            f"{name}: expected int64 [{len(weights)}] or soft [{len(weights)}, class], "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    if not hard:
        if num_classes is not None and labels.shape[1] != num_classes:
            raise ValueError(
                f"{name}: expected {num_classes} columns, got {labels.shape[1]}; num_classes says how many"
            )
        if not bool(labels.isfinite().all()):
            raise ValueError(f"{name}: expected finite soft labels, got NaN or infinity; leave those networks out")
        return labels.to(weights.device)
    if num_classes is None:
        raise ValueError(f"{name}: expected num_classes with int64 labels, got none; pass num_classes=10, say")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"{name}: expected classes in [0, {num_classes}), got {int(labels.min())} to {int(labels.max())}; "
            "raise num_classes or mend the labels"
        )
    classes = torch.arange(num_classes, device=weights.device)
    return (labels.to(weights.device)[:, None] == classes).to(weights.dtype)


HIDDEN = Need(lambda spec: bool(spec.hidden), "at least one hidden axis", repr, "a linear map has no such symmetry")


def need_scale(kind: str, example: str) -> Need:
    """Every hidden axis' activation commutes with factors of that kind."""

    def holds(spec: NetSpec) -> bool:
        return all(axis.symmetry.scale == kind for axis in spec.hidden)

    expected = f"activations that commute with {'signs' if kind == 'sign' else 'positive factors'} ({example})"
    return Need(holds, f"{expected} on every hidden axis", repr, "use Permute, which every activation allows")


PERIODIC = Need(
    lambda spec: all(axis.symmetry.periodic for axis in spec.hidden),
    "periodic activations (sine, cosine) on every hidden axis",
    repr,
    "use Permute, which every activation allows",
)

HIDDEN_BIAS = Need(
    lambda spec: {axis.name for axis in spec.hidden} <= {p.produces for p in spec.params if p.kind == "bias"},
    "a bias on every hidden axis",
    repr,
    "a phase lives in the bias; make the network with bias=True",
)


def need_inputs(least: int, most: int | None, remedy: str) -> Need:
    """The number of input coordinates."""
    words = f"at least {least}" if most is None else f"{least}" if least == most else f"{least} to {most}"
    return Need(
        lambda spec: least <= spec.in_features <= (most or spec.in_features),
        f"{words} input coordinate{'s' if words not in ('1', 'at least 1') else ''}",
        lambda spec: f"a {spec.in_features}-D INR",
        remedy,
    )
