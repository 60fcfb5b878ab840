"""Embeddings of networks, their nearest neighbours, and what a simple reader reads off them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._checks import check_tensor, whole_number
from weightspace._extras import optional
from weightspace._networks import Networks
from weightspace._weights import Weights
from weightspace.models import WeightModel
from weightspace.training._predict import predict
from weightspace.training._run import EVAL_BATCH

BLOCK = 2048


def embed(
    model: WeightModel,
    networks: Weights | Networks,
    *,
    batch_size: int = EVAL_BATCH,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Compute the features of networks from which a trained model reads its outputs.

    They are the inputs of the model's last linear layer; of a model that returns embeddings, or has no such layer, its
    outputs.

    Args:
        model: a trained model that returns a tensor; it is evaluated in evaluation mode, and moved to the device.
        networks: networks of the model's spec.
        batch_size: networks that are read at once.
        device: where to compute.

    Returns:
        ``[batch, feature]`` on the CPU.

    Raises:
        TypeError: for another kind of networks, or a model that does not return a tensor.
        ValueError: for networks of another spec.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> model = ws.models.MLP(spec, out_features=3, hidden=16, seed=0)
        >>> embed(model, ws.Weights(torch.randn(5, spec.num_params), spec)).shape
        torch.Size([5, 16])
    """
    seen = list[Tensor]()
    layer = _last_layer(model) if getattr(model, "output", None) == "tensor" else None
    if layer is None:
        return predict(model, networks, batch_size=batch_size, device=device)
    handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().cpu()))
    try:
        output = predict(model, networks, batch_size=batch_size, device=device)
    finally:
        handle.remove()
    whole = all(part.ndim == 2 for part in seen) and sum(map(len, seen)) == len(output)
    return torch.cat(seen) if whole and seen else output


def _last_layer(model: Any) -> nn.Linear | None:
    """Return the linear layer that makes the outputs, if the model has one that reads a row a network."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    last = linear[-1] if linear else None
    return last if last is not None and last.out_features == model.out_features else None


def neighbours(queries: Tensor, among: Tensor | None = None, *, k: int = 5) -> tuple[Tensor, Tensor]:
    """Find the nearest rows by the cosine of the angle between features.

    Args:
        queries: features ``[query, feature]``.
        among: features ``[row, feature]`` to search; ``None`` for the queries themselves, each without itself.
        k: neighbours of each query.

    Returns:
        ``(index [query, k], similarity [query, k])``, the nearest first; similarities are in [-1, 1].

    Raises:
        TypeError: for features that are not tensors.
        ValueError: for features of different sizes, or fewer rows than neighbours.

    Example:
        >>> index, similarity = neighbours(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), k=1)
        >>> index.flatten().tolist()
        [1, 0, 1]
    """
    check_tensor("queries", queries)
    own, rows = among is None, queries if among is None else among
    check_tensor("among", rows)
    if queries.ndim != 2 or rows.ndim != 2 or queries.shape[1] != rows.shape[1]:
        raise ValueError(f"among: expected [row, {queries.shape[-1]}], got {list(rows.shape)}")
    if whole_number("k", k) > len(rows) - own:
        raise ValueError(f"k: expected at most {len(rows) - own}, as there are rows, got {k}")
    base, parts = F.normalize(rows.float(), dim=1), []
    for start in range(0, len(queries), BLOCK):
        near = F.normalize(queries[start : start + BLOCK].float(), dim=1) @ base.T
        if own:
            near[torch.arange(len(near)), torch.arange(start, start + len(near))] = -torch.inf
        parts.append(near.topk(k, dim=1))
    if not parts:
        return torch.zeros(0, k, dtype=torch.int64), torch.zeros(0, k)
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


def probe(
    features: Tensor,
    labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    kind: Literal["linear", "knn"] = "linear",
    k: int = 5,
) -> float:
    """Measure what a simple reader learns of labels from features: a linear one, or the nearest neighbours.

    Features are standardised by the training features. Real-valued labels are read by ridge regression, or as the mean
    of the neighbours.

    Args:
        features: ``[batch, feature]``, to learn from.
        labels: ``[batch]``, whole numbers (classes) or real ones.
        test_features: ``[test, feature]``, to measure on.
        test_labels: ``[test]``.
        kind: ``"linear"``: logistic or ridge regression; ``"knn"``: the nearest neighbours.
        k: number of neighbours.

    Returns:
        The accuracy on the test features, or R² of real-valued labels.

    Raises:
        ImportError: where scikit-learn is not installed (extra ``digits``).
        ValueError: for an unknown kind, or fewer rows than neighbours.

    Example:
        >>> labels = torch.arange(60) % 2
        >>> features = labels[:, None] + 0.1 * torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        >>> probe(features[:40], labels[:40], features[40:], labels[40:])
        1.0
    """
    if kind not in ("linear", "knn"):
        raise ValueError(f"kind: expected 'linear' or 'knn', got {kind!r}")
    if kind == "knn" and whole_number("k", k) > len(features):
        raise ValueError(f"k: expected at most the {len(features)} rows, got {k}")
    linear, near, pipeline, scale = (
        optional(f"sklearn.{name}", "scikit-learn", "digits", "a probe of features")
        for name in ("linear_model", "neighbors", "pipeline", "preprocessing")
    )
    real = labels.is_floating_point()
    if kind == "linear":
        reader = linear.Ridge() if real else linear.LogisticRegression(max_iter=1000)
    else:
        reader = near.KNeighborsRegressor(k) if real else near.KNeighborsClassifier(k)
    made = pipeline.make_pipeline(scale.StandardScaler(), reader).fit(features.numpy(), labels.numpy())
    return float(made.score(test_features.numpy(), test_labels.numpy()))
