"""What a model is trained for: labels in, a loss and a score out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from weightspace._checks import whole_number


class Objective(ABC):
    """Turns labels into targets, outputs into a loss, and outputs into a score where higher is better."""

    score_name: str

    @abstractmethod
    def targets(self, labels: Tensor) -> Tensor:
        """Targets that transforms may mix: float ``[batch, ...]``."""

    @abstractmethod
    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch."""

    @abstractmethod
    def score(self, output: Tensor, labels: Tensor) -> Tensor:
        """Score of every network, ``[batch]``; its mean over a split is what the best epoch is chosen by."""


class Classification(Objective):
    """Cross-entropy with (mixed, smoothed) class probabilities; the score is accuracy.

    Example:
        >>> objective = Classification(3)
        >>> objective.targets(torch.tensor([1])).tolist()
        [[0.0, 1.0, 0.0]]
    """

    score_name = "accuracy"

    def __init__(self, num_classes: int) -> None:
        if whole_number("num_classes", num_classes, None) < 2:
            raise ValueError(f"expected at least 2 classes, got {num_classes}")
        self.num_classes = num_classes

    def targets(self, labels: Tensor) -> Tensor:
        return F.one_hot(labels, self.num_classes).to(torch.float32)

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        if output.shape != targets.shape:
            raise ValueError(
                f"expected outputs {list(targets.shape)}, one a class, got {list(output.shape)}; "
                f"build the model with out_features={self.num_classes}"
            )
        return F.cross_entropy(output, targets)

    def score(self, output: Tensor, labels: Tensor) -> Tensor:
        return (output.argmax(1) == labels).float()
