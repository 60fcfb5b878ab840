"""What a model is trained for: labels in, a loss and a score out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from weightspace._checks import check_tensor, whole_number
from weightspace._evaluate import evaluate
from weightspace._weights import Weights
from weightspace.models import Autoencoder

BLOCK = 256  # points that a score looks at together, for all networks of a batch


class Objective(ABC):
    """Turns labels into targets, outputs into a loss, and outputs into a score where higher is better.

    Losses and scores are also given the networks that the outputs are of, transformed as the model saw them: what
    needs no labels compares with those.
    """

    score_name: str

    def __repr__(self) -> str:
        """What a kept run is known by: two objectives that ask for different things read differently."""
        return type(self).__name__

    @abstractmethod
    def targets(self, labels: Tensor) -> Tensor:
        """Targets that transforms may mix: float ``[batch, ...]``."""

    @abstractmethod
    def loss(self, output: Tensor, targets: Tensor, weights: Weights) -> Tensor:
        """Mean loss of a batch."""

    @abstractmethod
    def score(self, output: Tensor, labels: Tensor, weights: Weights) -> Tensor:
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

    def loss(self, output: Tensor, targets: Tensor, weights: Weights) -> Tensor:
        if output.shape != targets.shape:
            raise ValueError(
                f"expected outputs {list(targets.shape)}, one a class, got {list(output.shape)}; "
                f"build the model with out_features={self.num_classes}"
            )
        return F.cross_entropy(output, targets)

    def score(self, output: Tensor, labels: Tensor, weights: Weights) -> Tensor:
        return (output.argmax(1) == labels).float()


class Reconstruction(Objective):
    r"""What an autoencoder is for: the values that every network gives at points of its input, without any label.

    .. math:: \frac{1}{M c} \sum_m \lVert \hat y(x_m) - f_w(x_m) \rVert^2

    for ``c`` outputs, over points drawn anew for every batch (by torch's global generator, as dropout), all networks of
    it looked at in the same places; the score is minus the mean squared error, over all points where the model is in
    evaluation mode. Transforms that move the networks' inputs move with them what is asked
    for.

    Args:
        model: the autoencoder that is trained: it decodes its own outputs.
        coords: the points, ``[point, in]``.
        points: how many of them each batch looks at; all where None.

    Raises:
        TypeError: for another model, or points that are no tensor.
        ValueError: for points of another size, none of them, or fewer than are to be drawn.

    Example:
        >>> import weightspace as ws
        >>> encoder = ws.models.NFT(ws.siren(2, 8, 8, 1), 32, hidden=8, layers=1)
        >>> objective = Reconstruction(ws.models.Autoencoder(encoder, queries=4), ws.signals.grid(28, 28), points=128)
        >>> objective.score_name
        'negative mean squared error'

    Reference:
        Zhou et al., *Neural Functional Transformers*, 2023, INR2ARRAY.
    """

    score_name = "negative mean squared error"

    def __init__(self, model: Autoencoder, coords: Tensor, points: int | None = None) -> None:
        if not isinstance(model, Autoencoder):
            raise TypeError(f"model: expected a ws.models.Autoencoder, got {type(model).__name__}")
        check_tensor("coords", coords)
        if coords.ndim != 2 or coords.shape[1] != model.spec.in_features or not len(coords):
            raise ValueError(f"coords: expected [point, {model.spec.in_features}], got {list(coords.shape)}")
        if points is not None and whole_number("points", points) > len(coords):
            raise ValueError(f"points: expected at most the {len(coords)} that there are, got {points}")
        self.model, self.coords, self.points = model, coords, points

    def targets(self, labels: Tensor) -> Tensor:
        return labels.to(torch.float32)[:, None]  # of no use here, but transforms that mix want some

    def __repr__(self) -> str:
        data = self.coords.detach().cpu().double().numpy().tobytes()
        return f"Reconstruction({hashlib.sha256(data).hexdigest()[:16]}, points={self.points})"

    def _drawn(self, device: torch.device) -> Tensor:
        coords = self.coords.to(device)
        return coords if self.points is None else coords[torch.randperm(len(coords), device=device)[: self.points]]

    def loss(self, output: Tensor, targets: Tensor, weights: Weights) -> Tensor:
        coords = self._drawn(output.device)
        return (self.model.decode(output, coords) - evaluate(weights, coords)).square().mean()

    @torch.no_grad()
    def score(self, output: Tensor, labels: Tensor, weights: Weights) -> Tensor:
        coords = self._drawn(output.device) if self.model.training else self.coords.to(output.device)
        total = output.new_zeros(len(output))
        for part in coords.split(BLOCK):
            total += (self.model.decode(output, part) - evaluate(weights, part)).square().flatten(1).sum(1)
        return -total / (len(coords) * self.model.spec.out_features)
