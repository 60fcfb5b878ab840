"""Checks at the doors of transforms: networks, pools and labels."""

from __future__ import annotations

import torch
from torch import Tensor

from weightspace._checks import check_generator, check_tensor, whole_number
from weightspace._weights import Weights, check_same_spec, check_weights


def check_input(weights: Weights, generator: torch.Generator | None) -> torch.Generator:
    """Raise unless ``weights`` is a batch of raw networks and ``generator`` a generator, which is returned."""
    check_weights("weights", weights)
    if weights.flat.ndim != 2:
        raise ValueError(f"weights: expected [batch, param], got features of shape {list(weights.flat.shape)}")
    check_generator(generator)
    assert generator is not None
    return generator


def check_pool(weights: Weights, pool: Weights) -> None:
    """Raise unless the networks of the pool can be mixed with the given ones."""
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
    """Return labels as ``[batch, class]`` on the weights' device.

    Raises:
        TypeError: for labels that are not a tensor, or a ``num_classes`` that is not a whole number.
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
