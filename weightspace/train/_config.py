"""How a model is trained: declared once, for the API, the CLI and the record of every result."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """Hyper-parameters of the training loop.

    Args:
        epochs: passes over the training split.
        batch_size: networks in a step.
        lr: peak step size of AdamW.
        weight_decay: of AdamW, decoupled.
        warmup: fraction of all steps in which the step size rises linearly; then it falls as a cosine to zero.
        clip: largest norm of the gradient; never clipped where None.
        seed: of shuffling, augmentation and (in benchmarks) of the model's initial weights.
        val_fraction: share of the training sources held out where the zoo has no "val" split.
    """

    epochs: int = 100
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    clip: float | None = 1.0
    seed: int = 0
    val_fraction: float = 0.1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr: expected a positive number, got {self.lr}")
        if not (0 <= self.warmup < 1 and 0 < self.val_fraction < 1):
            raise ValueError(f"expected warmup in [0, 1) and val_fraction in (0, 1), got {self}")
        if self.weight_decay < 0 or (self.clip is not None and self.clip <= 0) or self.seed < 0:
            raise ValueError(f"expected weight_decay >= 0, clip > 0 (or None) and seed >= 0, got {self}")


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the step size: linear warm-up, then half a cosine to zero.

    Example:
        >>> [round(schedule(s, 10, 0.2), 2) for s in (0, 1, 2, 6, 10)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rise = round(warmup * total)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))
