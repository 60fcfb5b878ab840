"""Objectives: a model and networks in, a loss and a score for each network out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from weightspace._checks import check_tensor, number, whole_number
from weightspace._evaluate import evaluate
from weightspace._networks import Networks
from weightspace._plugins import find, subclass_of
from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights, check_built_for
from weightspace.models import Autoencoder
from weightspace.transforms import Transform
from weightspace.zoo import Zoo

PROBE_SEED = 0
"""Seed of the values by whose edits an edit is known."""
BLOCK = 256
"""Points that an evaluation decodes together, for all networks of a batch."""


class Objective(ABC):
    """A loss to minimise, and a score by which epochs are compared, where higher is better.

    An objective is called with the model and networks as the model shall see them, transformed already. It keeps no
    state between calls. Your own objective is a class with :meth:`__call__`.
    """

    score_name: str

    @classmethod
    def for_zoo(cls, zoo: Zoo) -> Self:
        """Make the objective for the networks of a zoo, where it needs to know of them."""
        return cls()

    def __repr__(self) -> str:
        """The text by which a run folder knows the objective: objectives that differ read differently."""
        return type(self).__name__

    def check(self, model: Any) -> None:  # noqa: B027 (most objectives take any model)
        """Raise ``TypeError`` or ``ValueError`` for a model that the objective cannot train."""

    def targets(self, networks: Networks) -> Tensor:
        """Return the targets of networks, float ``[batch, ...]``, which transforms may mix.

        An objective without labels has no use for them; the default is a column of zeros.
        """
        return torch.zeros(len(networks), 1, device=networks.weights.device)

    @abstractmethod
    def __call__(
        self, model: Any, networks: Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of a batch and the score of each network.

        Args:
            model: the model; whether it trains is its mode, ``model.training``.
            networks: a batch, as the model shall see it. Its labels are those before any mixing.
            targets: what :meth:`targets` returned, mixed if a transform mixes.
            generator: source of randomness, on the networks' device.

        Returns:
            ``(loss [], score [batch])``; the score takes no gradient.
        """


def output_of(model: Any, networks: Networks, kind: type) -> Any:
    """Run the model and check that its output has the type that an objective expects."""
    output = model(networks.weights)
    if not isinstance(output, kind):
        words, head = ("Weights", "equivariant") if kind is Weights else ("a tensor", "invariant")
        raise TypeError(
            f"expected a model with an {head} head, which returns {words}, got {type(output).__name__}; "
            f"build it with head={head!r}"
        )
    return output


def _output_like(targets: Tensor, model: Any, networks: Networks, *, each: str) -> Tensor:
    """Run the model and check that it has an output for each class or number of the targets."""
    output = output_of(model, networks, Tensor)
    if output.shape != targets.shape:
        raise ValueError(
            f"expected outputs {list(targets.shape)}, one a {each}, got {list(output.shape)}; "
            f"build the model with out_features={targets.shape[1]}"
        )
    return output


class Classification(Objective):
    """Cross-entropy with (mixed, smoothed) class probabilities; the score is accuracy.

    Args:
        num_classes: number of classes, at least two.

    Example:
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.zeros(1, 17), ws.siren(2, 4, 1)), label=[1])
        >>> Classification(3).targets(networks).tolist()
        [[0.0, 1.0, 0.0]]
    """

    score_name = "accuracy"

    def __init__(self, num_classes: int) -> None:
        if whole_number("num_classes", num_classes, None) < 2:
            raise ValueError(f"expected at least 2 classes, got {num_classes}")
        self.num_classes = num_classes

    @classmethod
    def for_zoo(cls, zoo: Zoo) -> Self:
        """Make the objective for as many classes as the zoo has."""
        return cls(zoo.num_classes)

    def targets(self, networks: Networks) -> Tensor:
        label = _labels(networks)
        if label.is_floating_point():
            raise ValueError("expected labels that number classes, got real ones; train with objective='regression'")
        if len(label) and not 0 <= int(label.min()) <= int(label.max()) < self.num_classes:
            raise ValueError(
                f"expected labels from 0 to {self.num_classes - 1}, got {int(label.min())} to {int(label.max())}"
            )
        return F.one_hot(label, self.num_classes).to(torch.float32)

    def __call__(
        self, model: Any, networks: Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        output = _output_like(targets, model, networks, each="class")
        return F.cross_entropy(output, targets), (output.detach().argmax(1) == _labels(networks)).float()


class Regression(Objective):
    r"""Squared error of a number for each network, in units of its standard deviation.

    .. math:: \frac{1}{k} \sum_{j=1}^k \Big( \frac{y_j - v_j}{std_j} \Big)^2

    The numbers are the networks' labels where these are real-valued, or those of a table that whole-numbered labels
    look up. Outputs are in the numbers' own units, and so is the score, minus the mean absolute error. Transforms that
    mix labels mix the numbers.

    Args:
        values: ``[label]`` or ``[label, k]``, the numbers of the labels 0, 1, ...; ``None`` where the labels are the
            numbers.
        std: standard deviation of the labels, where they are the numbers.

    Raises:
        TypeError: for values that are not a tensor.
        ValueError: for values that are not finite or all alike, and in training for labels without a value.

    Example:
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.zeros(2, 17), ws.siren(2, 4, 1)), label=[2, 0])
        >>> Regression(torch.tensor([0.25, 0.5, 0.75])).targets(networks).tolist()
        [[0.75], [0.25]]

    Reference:
        Unterthiner et al., *Predicting Neural Network Accuracy from Weights*, 2020, the task.
    """

    score_name = "negative absolute error"

    def __init__(self, values: Tensor | None = None, *, std: float = 1.0) -> None:
        if values is None:
            self.values, self.std = None, torch.tensor([number("std", std, "a positive number", above=0)])
            return
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

    @classmethod
    def for_zoo(cls, zoo: Zoo) -> Self:
        """Make the objective for a zoo whose labels are the numbers, in units of the training split's spread."""
        label = zoo.labels("train").double()
        if not float(label.std()) > 0:
            raise ValueError("expected labels to learn, got the same number for every network")
        return cls(std=float(label.std()))

    def __repr__(self) -> str:
        return f"Regression({_digest(self.std if self.values is None else self.values)})"

    def targets(self, networks: Networks) -> Tensor:
        label = _labels(networks)
        if self.values is None:
            return label.to(torch.float32)[:, None]
        if label.is_floating_point() or (
            len(label) and not 0 <= int(label.min()) <= int(label.max()) < len(self.values)
        ):
            raise ValueError(
                f"expected labels from 0 to {len(self.values) - 1}, one a row of values, got "
                f"{label.min().item()} to {label.max().item()}"
            )
        return self.values.to(label.device)[label]

    def __call__(
        self, model: Any, networks: Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        output = _output_like(targets, model, networks, each="number")
        loss = ((output - targets.to(output)) / self.std.to(output)).square().mean()
        return loss, -(output.detach() - self.targets(networks).to(output)).abs().mean(1)


class Editing(Objective):
    r"""Weights to weights: networks whose functions are an edit of the functions of the given networks.

    .. math:: \frac{1}{M c} \sum_m \lVert f_{m(w)}(x_m) - edit(f_w)(x_m) \rVert^2

    The score is minus that error. Transforms that move the networks' inputs move the functions to be edited. Any model
    with weights as outputs can learn it; with ``head="editing"`` it starts close to the networks as they are.

    Args:
        spec: the networks that are edited.
        coords: the points at which functions are compared, ``[point, in]``.
        edit: from values at them, ``[batch, point, out]``, to values wanted there, the same every time; such as a
            dilation of pictures.

    Raises:
        TypeError: for other than a spec, a tensor and a function.
        ValueError: for networks that are not a chain of linear layers, points of another size, or an edit that returns
            another shape or numbers that are not finite.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> objective = Editing(spec, ws.signals.grid(8, 8), lambda values: 1 - values)
        >>> gray = ws.Networks(ws.Weights(torch.zeros(3, spec.num_params), spec))  # its negative is itself
        >>> loss, score = objective(lambda w: w, gray, objective.targets(gray), generator=torch.Generator())
        >>> score.tolist()
        [-0.0, -0.0, -0.0]

    Reference:
        Zhou et al., *Permutation Equivariant Neural Functionals*, 2023 (weight-space style editing). Departure: the
        function of the network is edited, not the picture that it was fitted to, so that errors do not compare.
    """

    score_name = "negative mean squared error"

    def __init__(self, spec: NetSpec, coords: Tensor, edit: Callable[[Tensor], Tensor]) -> None:
        check_spec(spec)
        _ = spec.layers  # refuses networks that cannot be evaluated
        self.spec, self.coords = spec, _points(coords, spec)
        if not callable(edit):
            raise TypeError(f"edit: expected a function of values, got {edit!r}")
        self.edit = edit
        shape = [3, len(coords), spec.out_features]
        probe = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(PROBE_SEED))
        self._probed = edit(probe.to(coords.device))  # a run folder knows the edit by its result on these values
        if not isinstance(self._probed, Tensor) or list(self._probed.shape) != shape:
            raise ValueError(
                f"edit: expected values of the shape given, {shape}, got {getattr(self._probed, 'shape', self._probed)}"
            )
        if not bool(torch.isfinite(self._probed).all()):
            raise ValueError("edit: expected finite values of finite ones, got NaN or infinity")

    def __repr__(self) -> str:
        return f"Editing({_digest(self.coords)}, edit={_digest(self._probed)})"

    def __call__(
        self, model: Any, networks: Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        check_built_for(self.spec, networks.weights)
        output, coords = output_of(model, networks, Weights), self.coords.to(networks.weights.device)
        with torch.no_grad():
            wanted = self.edit(evaluate(networks.weights, coords))
        errors = (evaluate(output, coords) - wanted).square().mean((1, 2))
        return errors.mean(), -errors.detach()


class Contrastive(Objective):
    r"""Two views of a network should have similar outputs, and views of different networks should not.

    .. math:: -\frac{1}{2B} \sum_i \Big( \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
        + \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}} \Big), \qquad s_{ij} = \langle z_i, z'_j \rangle / temperature

    No label is read. One view is the network as the training loop passes it, the other is that one moved by
    ``transform``. The score is 1 for a network whose second view is the most similar of all in its batch, else 0: it
    falls as batches grow, in evaluation to 1,024. Views in evaluation are the same every time.

    Args:
        transform: makes the second view.
        temperature: of the similarities.

    Raises:
        TypeError: for something other than a transform.
        ValueError: for models whose outputs are not of length one, transforms that mix networks or do not fit the
            spec, or a temperature that is not positive.

    Example:
        >>> from weightspace.transforms import Rotate
        >>> Contrastive(Rotate(10.0)).score_name
        'retrieval accuracy'

    Reference:
        Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*, 2020, equation 1; on
        weights: Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023. Departures: a view
        is compared with the views of the other kind alone; where the training loop transforms networks, the second
        view is a moved copy of the first.
    """

    score_name = "retrieval accuracy"

    def __init__(self, transform: Transform, *, temperature: float = 0.1) -> None:
        if not isinstance(transform, Transform):
            raise TypeError(f"transform: expected a transform, got {transform!r}")
        if transform.mixes_networks:
            raise ValueError(
                f"transform: expected one that makes a view of a network, got one that mixes: {transform!r}"
            )
        self.transform = transform
        self.temperature = number("temperature", temperature, "a positive number", above=0)

    def __repr__(self) -> str:
        return f"Contrastive({self.transform!r}, temperature={self.temperature})"

    def check(self, model: Any) -> None:
        self.transform.check(model.spec)

    def __call__(
        self, model: Any, networks: Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        output = output_of(model, networks, Tensor)
        if not bool(((output.detach().float().norm(dim=-1) - 1).abs() < 1e-2).all()):
            raise ValueError("expected outputs of length one, got others; build the model with head='embedding'")
        view = model(self.transform(networks.weights, generator=generator))
        s = output @ view.T / self.temperature
        own = torch.arange(len(s), device=s.device)
        loss = (F.cross_entropy(s, own) + F.cross_entropy(s.T, own)) / 2
        return loss, (s.detach().argmax(1) == own).float()


class Reconstruction(Objective):
    r"""The objective of an autoencoder: the values that every network computes at points of its input, without labels.

    .. math:: \frac{1}{M c} \sum_m \lVert \hat y(x_m) - f_w(x_m) \rVert^2

    for ``c`` outputs. In training the points are drawn anew for every batch, the same for all its networks; in
    evaluation all points are used. The score is minus the mean squared error. Transforms that move the networks' inputs
    move the values to be reconstructed with them.

    Args:
        coords: the points, ``[point, in]``.
        points: number of them to draw for each batch; all where ``None``.

    Raises:
        TypeError: for points that are not a tensor, or a model that is not an autoencoder.
        ValueError: for points of another size, none of them, or fewer than are to be drawn.

    Example:
        >>> import weightspace as ws
        >>> Reconstruction(ws.signals.grid(28, 28), points=128).score_name
        'negative mean squared error'

    Reference:
        Zhou et al., *Neural Functional Transformers*, 2023, INR2ARRAY.
    """

    score_name = "negative mean squared error"

    def __init__(self, coords: Tensor, points: int | None = None) -> None:
        check_tensor("coords", coords)
        self.coords = _finite_points(coords)
        if points is not None and whole_number("points", points) > len(coords):
            raise ValueError(f"points: expected at most the {len(coords)} that there are, got {points}")
        self.points = points

    def __repr__(self) -> str:
        return f"Reconstruction({_digest(self.coords)}, points={self.points})"

    def check(self, model: Any) -> None:
        if not isinstance(model, Autoencoder):
            raise TypeError(f"model: expected a ws.models.Autoencoder, got {type(model).__name__}")
        _points(self.coords, model.spec)

    def __call__(
        self, model: Any, networks: Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        output, coords = output_of(model, networks, Tensor), self.coords.to(networks.weights.device)
        if model.training and self.points is not None:
            drawn = torch.randperm(len(coords), generator=generator, device=generator.device)[: self.points]
            coords = coords[drawn.to(coords.device)]
        total = output.new_zeros(len(output))
        for part in coords.split(len(coords) if model.training else BLOCK):
            total = total + (model.decode(output, part) - evaluate(networks.weights, part)).square().flatten(1).sum(1)
        errors = total / (len(coords) * model.spec.out_features)
        return errors.mean(), -errors.detach()


OBJECTIVES: dict[str, type[Objective]] = {"classification": Classification, "regression": Regression}
"""Objectives by name: those that need nothing beyond the zoo."""


def objective_for(name: str, zoo: Zoo) -> Objective:
    """Make the objective of a name, or of an import path such as ``my_package.module:MyObjective``, for a zoo.

    Raises:
        ValueError: for an unknown name, or a zoo without the labels that the objective needs.
    """
    return find("objectives", name, OBJECTIVES, subclass_of(Objective)).for_zoo(zoo)


def _labels(networks: Networks) -> Tensor:
    if networks.label is None:
        raise ValueError("expected labelled networks, got none with labels; give them as Networks(weights, label=...)")
    return networks.label


def _points(coords: Tensor, spec: NetSpec) -> Tensor:
    """Return a copy of points of a network's input, at least one."""
    check_tensor("coords", coords)
    if coords.ndim != 2 or coords.shape[1] != spec.in_features or not len(coords):
        raise ValueError(f"coords: expected [point, {spec.in_features}], got {list(coords.shape)}")
    return _finite_points(coords)


def _finite_points(coords: Tensor) -> Tensor:
    if coords.ndim != 2 or not len(coords):
        raise ValueError(f"coords: expected [point, in] with at least one point, got {list(coords.shape)}")
    if not coords.is_floating_point() or not bool(torch.isfinite(coords).all()):
        raise ValueError(f"coords: expected finite numbers of a floating type, got {coords.dtype}")
    return coords.detach().clone()


def _digest(values: Tensor) -> str:
    """Return a short name of these numbers."""
    return hashlib.sha256(values.detach().cpu().double().numpy().tobytes()).hexdigest()[:16]
