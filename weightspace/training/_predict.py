"""Trained models at work: predictions for networks or new signals, and scores on the labels of a zoo."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._networks import Networks
from weightspace._weights import Weights
from weightspace.fitting import FitConfig, fit
from weightspace.fitting._fit import OnProgress
from weightspace.models import WeightModel
from weightspace.signals import ImageSet, SignalSet
from weightspace.training._labelled import numbers_of
from weightspace.training._objective import check_output
from weightspace.training._run import EVAL_BATCH
from weightspace.zoo import Zoo

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey, of ITU-R BT.601."""


def predict(
    model: WeightModel,
    networks: Weights | Networks | SignalSet,
    *,
    batch_size: int = EVAL_BATCH,
    device: str | torch.device = "cpu",
    workers: int | None = None,
) -> Tensor:
    """Compute the outputs of a trained model for networks, or for signals that are fitted first.

    Signals are fitted by the recipe of the zoo that the model was trained on, ``model.recipe``, one network each. They
    must be of the same kind: images of the same size, points of as many coordinates. Colours become grey where the
    networks have one output, and grey becomes colour where they have three.

    Args:
        model: a trained model that returns a tensor; it is evaluated in evaluation mode, and moved to the device.
        networks: networks of the model's spec, ``[batch, param]``, or signals.
        batch_size: networks that are read at once.
        device: where to compute.
        workers: cores to fit signals with; all where ``None``.

    Returns:
        ``[batch, out_features]`` on the CPU: of a classifier the logits, whose ``argmax(1)`` numbers ``model.classes``;
        of a regression the numbers.

    Raises:
        TypeError: for another kind of networks, or a model that does not return a tensor.
        ValueError: for networks of another spec, or signals that cannot be fitted as the model's networks were.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> model = ws.models.MLP(spec, out_features=3, hidden=8, seed=0)
        >>> predict(model, ws.Weights(torch.randn(5, spec.num_params), spec)).shape
        torch.Size([5, 3])
    """
    _check_model(model)
    if isinstance(networks, SignalSet):
        networks = fitted(model, networks, device=device, workers=workers)
    weights = networks.weights if isinstance(networks, Networks) else networks
    if not isinstance(weights, Weights):
        raise TypeError(
            f"networks: expected Weights, Networks or signals, got {type(networks).__name__}; "
            "open a zoo and pass zoo['test'], or read files with ws.datasets.load"
        )
    size = whole_number("batch_size", batch_size)
    parts = []
    with _evaluating(model, device):
        for start in range(0, len(weights), size):
            output = model(weights[start : start + size].to(device))
            check_output(output, Tensor)
            parts.append(output.cpu())
    return torch.cat(parts) if parts else torch.zeros(0, model.out_features)


def evaluate_model(
    model: WeightModel,
    zoo: Zoo,
    split: str = "test",
    *,
    batch_size: int = EVAL_BATCH,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    r"""Measure a trained model on the labels of a zoo: classes, or real numbers, or the column that it was trained on.

    Networks without a label count as ``"unlabelled"`` and nowhere else. For real labels ``y`` and outputs ``v``

    .. math:: R^2 = 1 - \frac{\sum_i (y_i - v_i)^2}{\sum_i (y_i - \bar y)^2}

    and Kendall's tau is the share of pairs in the right order minus the share in the wrong one, with ties (tau-b).

    Args:
        model: a trained model that returns a tensor.
        zoo: networks of the model's spec.
        split: the split to measure on.
        batch_size: networks that are read at once.
        device: where to compute.

    Returns:
        Plain values. Of whole-numbered labels ``"accuracy"``, ``"classes"`` (for each its ``"name"``, ``"networks"``,
        ``"precision"``, ``"recall"`` and ``"f1"``) and ``"confusion"``, ``[class, predicted class]`` in networks. Of
        real labels ``"r2"``, ``"kendall"`` and ``"mae"``, the mean absolute error. A share of nothing is ``None``.

    Raises:
        TypeError: for a model that does not return a tensor.
        ValueError: for an unknown split, other classes than the model's, or networks without labels.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 4, 1)
        >>> networks = ws.Networks(ws.Weights(torch.randn(8, spec.num_params), spec), label=[0, 1] * 4)
        >>> zoo = ws.zoo.write_zoo(tempfile.mkdtemp(), test=networks)
        >>> found = evaluate_model(ws.models.MLP(spec, out_features=2, hidden=4, seed=0), zoo)
        >>> found["networks"], sum(map(sum, found["confusion"]))
        (8, 8)
    """
    _check_model(model)
    target = model.about.get("target")
    labels = zoo.labels(split) if target is None else numbers_of(zoo[split], target)
    real, known = labels.is_floating_point(), labels >= 0
    if not real and model.classes and zoo.classes and model.classes != zoo.classes:
        raise ValueError(
            f"zoo: expected the model's classes {list(model.classes)!r:.300}, got {list(zoo.classes)!r:.300}; "
            "measure on networks whose labels number the same classes"
        )
    if real:
        known = torch.ones_like(labels, dtype=torch.bool)
    if not bool(known.any()):
        raise ValueError(f"zoo: expected labels in the split {split!r}, got none; fit labelled signals")
    output = torch.cat(
        [
            predict(model, batch, batch_size=batch_size, device=device)
            for batch in zoo.batches(split, batch_size, shuffle=False)
        ]
    )
    output, labels = output[known], labels[known]
    counts = {"split": split, "networks": len(labels), "unlabelled": int((~known).sum())}
    if real:
        return {**counts, **_of_numbers(output, labels)}
    if int(labels.max()) >= output.shape[1]:
        raise ValueError(f"zoo: expected labels below the model's {output.shape[1]} outputs, got {int(labels.max())}")
    return {**counts, **_of_classes(output.argmax(1), labels, model.classes or zoo.classes, output.shape[1])}


def _of_classes(found: Tensor, labels: Tensor, names: tuple[str, ...], count: int) -> dict[str, Any]:
    """Compare numbers of classes."""
    confusion = torch.bincount(labels * count + found, minlength=count * count).reshape(count, count)
    right, own, given = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    rows = [
        {
            "name": names[k] if k < len(names) else str(k),
            "networks": int(own[k]),
            "precision": _share(right[k], given[k]),
            "recall": _share(right[k], own[k]),
            "f1": _share(2 * right[k], own[k] + given[k]),
        }
        for k in range(count)
    ]
    return {"accuracy": _share(right.sum(), own.sum()), "classes": rows, "confusion": confusion.tolist()}


def _share(part: Tensor, whole: Tensor) -> float | None:
    return float(part) / float(whole) if float(whole) else None


def _of_numbers(output: Tensor, labels: Tensor) -> dict[str, Any]:
    """Compare real numbers."""
    from scipy.stats import kendalltau  # half a second to import

    if output.shape[1] != 1:
        raise ValueError(f"model: expected one output for real-valued labels, got {output.shape[1]}")
    value, wanted = output[:, 0].double(), labels.double()
    rest, spread = (wanted - value).square().sum(), (wanted - wanted.mean()).square().sum()
    pairs: Any = kendalltau(value.numpy(), wanted.numpy()) if len(value) > 1 else None
    tau = math.nan if pairs is None else float(pairs.statistic)
    return {
        "r2": float(1 - rest / spread) if float(spread) else None,
        "kendall": tau if math.isfinite(tau) else None,
        "mae": float((wanted - value).abs().mean()),
    }


def fitted(
    model: WeightModel,
    data: SignalSet,
    *,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> Networks:
    """Fit new signals as the networks were fitted that a model was trained on, see :func:`predict`.

    Raises:
        ValueError: for a model that does not know the recipe, and signals of another kind.
    """
    remedy = "fit them with weightspace fit as the model's networks were, and predict on that zoo"
    try:
        config = FitConfig.from_recipe(model.recipe)
    except (TypeError, ValueError) as error:
        raise ValueError(f"model: expected one that knows the recipe of its networks, got none; {remedy}") from error
    if model.recipe.get("start") is not None:
        raise ValueError(f"model: expected networks that began at random, got ones with a learned start; {remedy}")
    data = _alike(model, data)
    config = replace(config, views=1)
    coords, targets = data.signals()
    return fit(
        coords,
        targets,
        model.spec,
        config=config,
        sources=torch.as_tensor(data.sources),
        device=device,
        workers=workers,
        on_progress=on_progress,
    )


def picture_size(model: WeightModel) -> tuple[int, int] | None:
    """Return height and width of the pictures that the model's networks were fitted to; ``None`` for other signals."""
    signals = model.about.get("signals", {})
    found = signals.get("height"), signals.get("width")
    return found if all(isinstance(side, int) and side > 0 for side in found) else None  # pyright: ignore[reportReturnType]


def _alike(model: WeightModel, data: SignalSet) -> SignalSet:
    """Return signals as the model's networks can be fitted to them, or refuse them."""
    spec, size = model.spec, picture_size(model)
    if isinstance(data, ImageSet):
        if size is not None and data.images.shape[1:3] != size:
            height, width = data.images.shape[1:3]
            raise ValueError(
                f"signals: expected images of {size[0]}x{size[1]}, as the model's networks were fitted to, got "
                f"{height}x{width}; read them with size=({size[0]}, {size[1]})"
            )
        data = _with_channels(data, spec.out_features)
    if (data.in_features, data.out_features) != (spec.in_features, spec.out_features):
        raise ValueError(
            f"signals: expected {spec.in_features} coordinates and {spec.out_features} values a point, as the model's "
            f"networks have, got {data.in_features} and {data.out_features}"
        )
    return data


def _with_channels(data: ImageSet, channels: int) -> ImageSet:
    """Turn colours into grey, or grey into colours, where networks of so many outputs need it."""
    images = data.images
    if channels == 1 and images.ndim == 4 and images.shape[3] == 3:
        grey = images.astype(np.float32) @ np.array(GREY, np.float32)
        return replace(data, images=grey.round().astype(np.uint8) if images.dtype == np.uint8 else grey)
    if channels == 3 and data.out_features == 1:
        return replace(data, images=np.repeat(images.reshape(*images.shape[:3], 1), 3, axis=3))
    return data


@contextmanager
def _evaluating(model: nn.Module, device: str | torch.device) -> Iterator[None]:
    """Move a model to a device, and evaluate it for a while."""
    before = model.training
    model.to(device).eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(before)


def _check_model(model: Any) -> None:
    if not isinstance(model, WeightModel):
        raise TypeError(
            f"model: expected a model of ws.models, got {type(model).__name__}; open one with ws.models.load_model(run)"
        )
