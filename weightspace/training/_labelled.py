"""Objectives of labels: classes, and real numbers."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from weightspace._checks import check_tensor, number, whole_number
from weightspace._networks import Networks
from weightspace.training._objective import Objective, check_output, digest
from weightspace.zoo import Zoo


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
        column: name of the further column that holds the numbers, instead of the labels.

    Raises:
        TypeError: for values that are not a tensor.
        ValueError: for values that are not finite or all alike, values and a column together, and in training for
            labels without a value, and columns that are not there or not finite.

    Example:
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.zeros(2, 17), ws.siren(2, 4, 1)), label=[2, 0])
        >>> Regression(torch.tensor([0.25, 0.5, 0.75])).targets(networks).tolist()
        [[0.75], [0.25]]

    Reference:
        Unterthiner et al., *Predicting Neural Network Accuracy from Weights*, 2020, the task.
    """

    score_name = "negative absolute error"

    def __init__(self, values: Tensor | None = None, *, std: float = 1.0, column: str | None = None) -> None:
        self.column = column
        if values is not None and column is not None:
            raise ValueError("values: expected either values of labels or a column of numbers, got both")
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
    def for_zoo(cls, zoo: Zoo, *, column: str | None = None) -> Self:
        """Make the objective for a zoo, in units of the training split's spread.

        Args:
            zoo: the networks.
            column: the further column with the numbers; the labels are the numbers where ``None``.
        """
        numbers = zoo.labels("train").double() if column is None else numbers_of(zoo["train"], column).double()
        if not float(numbers.std()) > 0:
            raise ValueError("expected labels to learn, got the same number for every network")
        return cls(std=float(numbers.std()), column=column)

    def __repr__(self) -> str:
        column = "" if self.column is None else f", column={self.column!r}"
        return f"Regression({digest(self.std if self.values is None else self.values)}{column})"

    def targets(self, networks: Networks) -> Tensor:
        if self.column is not None:
            return numbers_of(networks, self.column)[:, None]
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


def _output_like(targets: Tensor, model: Any, networks: Networks, *, each: str) -> Tensor:
    """Run the model and check that it has an output for each class or number of the targets."""
    output = model(networks.weights)
    check_output(output, Tensor)
    if output.shape != targets.shape:
        raise ValueError(
            f"expected outputs {list(targets.shape)}, one a {each}, got {list(output.shape)}; "
            f"build the model with out_features={targets.shape[1]}"
        )
    return output


def _labels(networks: Networks) -> Tensor:
    if networks.label is None:
        raise ValueError("expected labelled networks, got none with labels; give them as Networks(weights, label=...)")
    return networks.label


def numbers_of(networks: Networks, column: str) -> Tensor:
    """Return the numbers of a further column as float32 ``[batch]``.

    Raises:
        ValueError: for a column that is not there, holds texts, or numbers that are not finite.
    """
    found = networks.columns.get(column)
    if not isinstance(found, Tensor):
        got = "texts" if column in networks.columns else f"{column!r}"
        names = [name for name, values in networks.columns.items() if isinstance(values, Tensor)]
        raise ValueError(f"column: expected one of numbers, among {names}, got {got}")
    if bad := int((~found.isfinite()).sum()):
        raise ValueError(
            f"column {column!r}: expected finite numbers, got NaN or infinity in {bad} networks; leave those out: "
            "ws.zoo.subset(zoo, path, {split: rows})"
        )
    return found.float()
