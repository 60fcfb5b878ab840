"""Objectives of the functions that networks compute: edits of them, and their reconstruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from weightspace._checks import check_tensor, whole_number
from weightspace._evaluate import evaluate
from weightspace._networks import Networks
from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights, check_built_for
from weightspace.models import Autoencoder
from weightspace.training._objective import Objective, check_output, digest

PROBE_SEED = 0
"""Seed of the values by whose edits an edit is known."""
BLOCK = 256
"""Points that an evaluation decodes together, for all networks of a batch."""


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
        return f"Editing({digest(self.coords)}, edit={digest(self._probed)})"

    def __call__(
        self, model: Any, networks: Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        check_built_for(self.spec, networks.weights)
        output, coords = model(networks.weights), self.coords.to(networks.weights.device)
        check_output(output, Weights)
        with torch.no_grad():
            wanted = self.edit(evaluate(networks.weights, coords))
        errors = (evaluate(output, coords) - wanted).square().mean((1, 2))
        return errors.mean(), -errors.detach()


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
        return f"Reconstruction({digest(self.coords)}, points={self.points})"

    def check(self, model: Any) -> None:
        if not isinstance(model, Autoencoder):
            raise TypeError(f"model: expected a ws.models.Autoencoder, got {type(model).__name__}")
        _points(self.coords, model.spec)

    def __call__(
        self, model: Any, networks: Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        output, coords = model(networks.weights), self.coords.to(networks.weights.device)
        check_output(output, Tensor)
        if model.training and self.points is not None:
            drawn = torch.randperm(len(coords), generator=generator, device=generator.device)[: self.points]
            coords = coords[drawn.to(coords.device)]
        total = output.new_zeros(len(output))
        for part in coords.split(len(coords) if model.training else BLOCK):
            total = total + (model.decode(output, part) - evaluate(networks.weights, part)).square().flatten(1).sum(1)
        errors = total / (len(coords) * model.spec.out_features)
        return errors.mean(), -errors.detach()


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
