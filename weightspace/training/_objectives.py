"""What a model is trained for: labels in, a loss and a score out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from weightspace._checks import check_tensor, number, whole_number
from weightspace._evaluate import evaluate
from weightspace._spec import NetSpec
from weightspace._weights import Weights, check_built_for
from weightspace.models import Autoencoder, Model
from weightspace.models.layers._chain import chain
from weightspace.transforms import Transform

PROBE_SEED = 0  # of the values by which an edit is known
VIEW_SEED = 0  # of the views that a score compares with
BLOCK = 256  # points that a score looks at together, for all networks of a batch


class Objective(ABC):
    """Turns labels into targets, outputs into a loss, and outputs into a score where higher is better.

    Losses and scores are also given the networks that the outputs are of, transformed as the model saw them: what
    needs no labels compares with those. ``gives`` is what outputs are: tensors, or ``Weights`` of an equivariant head.
    In training a score is asked for after each batch's loss, and takes no gradient. ``model`` is the one that an
    objective asks itself, and must be the one that is trained.
    """

    score_name: str
    gives: type = Tensor
    model: Any = None

    def __repr__(self) -> str:
        """What a kept run is known by: two objectives that ask for different things read differently."""
        return type(self).__name__

    def targets(self, labels: Tensor) -> Tensor:
        """Targets that transforms may mix: float ``[batch, ...]``; the labels' numbers, of no use to a loss that reads
        none."""
        return labels.to(torch.float32)[:, None]

    @abstractmethod
    def loss(self, output: Any, targets: Tensor, weights: Weights) -> Tensor:
        """Mean loss of a batch."""

    @abstractmethod
    def score(self, output: Any, labels: Tensor, weights: Weights) -> Tensor:
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


class Regression(Objective):
    r"""Squared error of numbers that the labels stand for, in units of their variance.

    .. math:: \frac{1}{k} \sum_{j=1}^k \Big( \frac{y_j - v_{label, j}}{std(v_j)} \Big)^2

    Outputs are in the numbers' own units, and so is the score, minus the mean absolute error. The variance is over all
    values given. Transforms that mix labels mix the numbers; smoothing them means nothing here.

    Args:
        values: ``[label]`` or ``[label, k]``, in the order of the labels: of each class, or where labels count the
            networks, of each network, such as its accuracy.

    Raises:
        TypeError: for values that are no tensor.
        ValueError: for values that are not finite or all alike, and in training for labels without a value.

    Example:
        >>> objective = Regression(torch.tensor([0.1, 0.3, 0.8]))
        >>> objective.targets(torch.tensor([2, 0])).tolist()
        [[0.800000011920929], [0.10000000149011612]]

    Reference:
        Unterthiner et al., *Predicting Neural Network Accuracy from Weights*, 2020, the task.
    """

    score_name = "negative absolute error"

    def __init__(self, values: Tensor) -> None:
        check_tensor("values", values)
        exact = values.detach().double() if not values.is_complex() else values.new_zeros(0)
        if exact.ndim not in (1, 2) or len(exact) < 2 or not exact.numel() or not bool(torch.isfinite(exact).all()):
            raise ValueError(
                "values: expected finite numbers [label] or [label, k] of at least 2 labels, "
                f"got {values.dtype} {list(values.shape)}"
            )
        exact = exact if exact.ndim == 2 else exact[:, None]
        if not bool((exact.amax(0) > exact.amin(0)).all()):
            raise ValueError("values: expected numbers to learn, got one that is the same for all labels")
        self.values, self.std = exact.float(), exact.std(0).float()

    def __repr__(self) -> str:
        return f"Regression({_digest(self.values)})"

    def targets(self, labels: Tensor) -> Tensor:
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.values):
            raise ValueError(
                f"expected labels from 0 to {len(self.values) - 1}, one a row of values, got "
                f"{int(labels.min())} to {int(labels.max())}"
            )
        return self.values.to(labels.device)[labels]

    def _error(self, output: Tensor, targets: Tensor) -> Tensor:
        if output.shape != targets.shape:
            raise ValueError(
                f"expected outputs {list(targets.shape)}, one a number, got {list(output.shape)}; "
                f"build the model with out_features={self.values.shape[1]}"
            )
        return output - targets.to(output)

    def loss(self, output: Tensor, targets: Tensor, weights: Weights) -> Tensor:
        return (self._error(output, targets) / self.std.to(output)).square().mean()

    def score(self, output: Tensor, labels: Tensor, weights: Weights) -> Tensor:
        return -self._error(output, self.targets(labels)).abs().mean(1)


class Editing(Objective):
    r"""Weights to weights: networks whose functions are an edit of what the given networks compute.

    .. math:: \frac{1}{M c} \sum_m \lVert f_{m(w)}(x_m) - edit(f_w)(x_m) \rVert^2

    The score is minus that error. Transforms that move the networks' inputs move what is to be edited. Any model with
    weights as outputs can learn it; with ``head="editing"`` it starts close to the networks as they are.

    Args:
        spec: the networks that are edited.
        coords: the points that are looked at, ``[point, in]``.
        edit: from values at them, ``[batch, point, out]``, to values wanted there, the same every time; such as a
            dilation of pictures.

    Raises:
        TypeError: for other than a spec, a tensor and a function.
        ValueError: for networks that are no chain of linear layers, points of another size, or an edit that gives
            another shape or numbers that are not finite.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> objective = Editing(spec, ws.signals.grid(8, 8), lambda values: 1 - values)
        >>> w = ws.Weights(torch.zeros(3, spec.num_params), spec)  # gray: its negative is itself
        >>> objective.score(w, torch.zeros(3), w).tolist()
        [-0.0, -0.0, -0.0]

    Reference:
        Zhou et al., *Permutation Equivariant Neural Functionals*, 2023 (weight-space style editing). Departure: what is
        edited is what the network computes, not the picture that it was fitted to, so that errors do not compare.
    """

    score_name = "negative mean squared error"
    gives = Weights

    def __init__(self, spec: NetSpec, coords: Tensor, edit: Callable[[Tensor], Tensor]) -> None:
        chain(spec, "Editing")
        self.spec, self.coords = spec, _points(coords, spec)
        if not callable(edit):
            raise TypeError(f"edit: expected a function of values, got {edit!r}")
        self.edit = edit
        shape = [3, len(coords), spec.out_features]
        probe = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(PROBE_SEED))
        self._probed = edit(probe.to(coords.device))  # what the edit does: a kept run knows it by that
        if not isinstance(self._probed, Tensor) or list(self._probed.shape) != shape:
            raise ValueError(
                f"edit: expected values of the shape given, {shape}, got {getattr(self._probed, 'shape', self._probed)}"
            )
        if not bool(torch.isfinite(self._probed).all()):
            raise ValueError("edit: expected finite values of finite ones, got NaN or infinity")

    def __repr__(self) -> str:
        return f"Editing({_digest(self.coords)}, edit={_digest(self._probed)})"

    def _errors(self, output: Weights, weights: Weights) -> Tensor:
        check_built_for(self.spec, weights)
        coords = self.coords.to(weights.device)
        with torch.no_grad():
            wanted = self.edit(evaluate(weights, coords))
        return (evaluate(output, coords) - wanted).square().mean((1, 2))

    def loss(self, output: Weights, targets: Tensor, weights: Weights) -> Tensor:
        return self._errors(output, weights).mean()

    def score(self, output: Weights, labels: Tensor, weights: Weights) -> Tensor:
        return -self._errors(output, weights)


class Contrastive(Objective):
    r"""Two views of a network should have similar outputs, and views of different networks should not.

    .. math:: -\frac{1}{2B} \sum_i \Big( \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
        + \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}} \Big), \qquad s_{ij} = \langle z_i, z'_j \rangle / temperature

    No label is read. One view is the network as the training loop gives it, the other is that one moved by
    ``transform``. The score is 1 for a network whose second view is the most similar of all in its batch, else 0: it
    falls as batches grow, in evaluation to 1,024. Views to score by are the same every time.

    Args:
        model: the model that is trained, built with ``head="embedding"``.
        transform: what makes the second view.
        temperature: of the similarities.

    Raises:
        TypeError: for other than a model and a transform.
        ValueError: for outputs that are not of length one, transforms that mix networks or do not fit the spec, or a
            temperature that is not positive.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Rotate
        >>> model = ws.models.build("dwsnet", ws.siren(2, 8, 8, 1), 16, hidden=4, layers=1, head="embedding")
        >>> Contrastive(model, Rotate(10.0)).score_name
        'retrieval accuracy'

    Reference:
        Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*, 2020, equation 1; on
        weights: Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023. Departures: a view
        is held against the other views alone, not against those of its own kind too; where the training loop moves
        networks, the second view is a moved copy of the first.
    """

    score_name = "retrieval accuracy"
    model: Model

    def __init__(self, model: Model, transform: Transform, *, temperature: float = 0.1) -> None:
        if not isinstance(model, Model):
            raise TypeError(f"model: expected a model of ws.models, got {type(model).__name__}")
        if not model.unit:
            raise ValueError("model: expected outputs of length one; build it with head='embedding'")
        if not isinstance(transform, Transform):
            raise TypeError(f"transform: expected a transform, got {transform!r}")
        if transform.mixes:
            raise ValueError(
                f"transform: expected one that makes a view of a network, got one that mixes: {transform!r}"
            )
        transform.check(model.spec)
        self.model, self.transform = model, transform
        self.temperature = number("temperature", temperature, "a positive number", above=0)
        self._last: tuple[Weights, Tensor] | None = None

    def __repr__(self) -> str:
        return f"Contrastive({self.transform!r}, temperature={self.temperature})"

    def _similarities(self, output: Tensor, weights: Weights, generator: torch.Generator) -> Tensor:
        view = self.model(self.transform(weights, generator=generator))
        return output @ view.T / self.temperature

    def loss(self, output: Tensor, targets: Tensor, weights: Weights) -> Tensor:
        seed = int(torch.randint(2**62, ()))  # of torch's global generator, as dropout
        s = self._similarities(output, weights, torch.Generator(weights.device).manual_seed(seed))
        own = torch.arange(len(s), device=s.device)
        self._last = weights, s.detach()
        return (F.cross_entropy(s, own) + F.cross_entropy(s.T, own)) / 2

    @torch.no_grad()
    def score(self, output: Tensor, labels: Tensor, weights: Weights) -> Tensor:
        last, self._last = self._last, None
        if last is not None and last[0] is weights:
            s = last[1]  # of the loss that was asked for just before
        else:
            s = self._similarities(output, weights, torch.Generator(weights.device).manual_seed(VIEW_SEED))
        return (s.argmax(1) == torch.arange(len(s), device=s.device)).float()


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
    model: Autoencoder

    def __init__(self, model: Autoencoder, coords: Tensor, points: int | None = None) -> None:
        if not isinstance(model, Autoencoder):
            raise TypeError(f"model: expected a ws.models.Autoencoder, got {type(model).__name__}")
        coords = _points(coords, model.spec)
        if points is not None and whole_number("points", points) > len(coords):
            raise ValueError(f"points: expected at most the {len(coords)} that there are, got {points}")
        self.model, self.coords, self.points = model, coords, points

    def __repr__(self) -> str:
        return f"Reconstruction({_digest(self.coords)}, points={self.points})"

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


def _points(coords: Tensor, spec: NetSpec) -> Tensor:
    """A copy of points of a network's input, at least one."""
    check_tensor("coords", coords)
    if coords.ndim != 2 or coords.shape[1] != spec.in_features or not len(coords):
        raise ValueError(f"coords: expected [point, {spec.in_features}], got {list(coords.shape)}")
    if not coords.is_floating_point() or not bool(torch.isfinite(coords).all()):
        raise ValueError(f"coords: expected finite numbers of a floating type, got {coords.dtype}")
    return coords.detach().clone()


def _digest(values: Tensor) -> str:
    """A short name of these numbers."""
    return hashlib.sha256(values.detach().cpu().double().numpy().tobytes()).hexdigest()[:16]
