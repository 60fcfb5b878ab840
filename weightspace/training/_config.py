"""How a model is trained: declared once, for the API, the CLI and the record of every result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weightspace._checks import number, whole_number


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
        ema: decay, for each step, of a running mean of the model's parameters and running statistics. That mean is
            validated and kept in place of the last step's; none where 0. In the first steps it forgets faster.
        share: part of the training sources to train on, in (0, 1], with all their views; chosen by a hash of the source
            alone, so that a larger share holds a smaller one. All where None.
        views: train on the first views of each signal, so many; on all where None.
        epoch_steps: steps of an epoch, in as many passes over the training split as they take, for equal budgets on
            splits of different size; one pass where None.

    Raises:
        TypeError: for a field of another type.
        ValueError: for a number out of range.
    """

    epochs: int = 100
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    clip: float | None = 1.0
    seed: int = 0
    val_fraction: float = 0.1
    ema: float = 0.0
    share: float | None = None
    views: int | None = None
    epoch_steps: int | None = None

    def __post_init__(self) -> None:
        plain: dict[str, int | float] = {  # what a caller gave as a NumPy number is recorded as a plain one
            "epochs": whole_number("epochs", self.epochs),
            "batch_size": whole_number("batch_size", self.batch_size),
            "lr": number("lr", self.lr, "a positive number", above=0),
            "weight_decay": number("weight_decay", self.weight_decay, "weight_decay >= 0", low=0),
            "warmup": number("warmup", self.warmup, "warmup in [0, 1)", low=0, below=1),
            "seed": whole_number("seed", self.seed, None),
            "val_fraction": number("val_fraction", self.val_fraction, "val_fraction in (0, 1)", above=0, below=1),
        }
        plain["ema"] = number("ema", self.ema, "ema in [0, 1)", low=0, below=1)
        if self.clip is not None:
            plain["clip"] = number("clip", self.clip, "clip > 0 (or None)", above=0)
        if self.share is not None:
            plain["share"] = number("share", self.share, "share in (0, 1] (or None)", above=0, high=1)
        for name in ("views", "epoch_steps"):
            if getattr(self, name) is not None:
                plain[name] = whole_number(name, getattr(self, name))
        if plain["seed"] < 0:
            raise ValueError(f"seed: expected seed >= 0, got {self.seed}")
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @staticmethod
    def filled(record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record of a configuration with the fields that came after it was written, as they behaved then."""
        return {"ema": 0.0, "share": None, "views": None, "epoch_steps": None, **record}


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
