"""Several trained models as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from weightspace._weights import Weights
from weightspace.models._base import Model, Respects, Wrapper


class Ensemble(Wrapper):
    r"""The mean of what several trained models make of the same networks.

    .. math:: y(w) = \frac{1}{n} \sum_{i=1}^n m_i(w)

    For classes that is the mean of logits. Models of one recipe and different seeds make different mistakes: the mean
    is more accurate than they are, for ``n`` times the cost. It respects what all of them do.

    Args:
        models: of one spec, one track and as many outputs, each with an invariant head.

    Raises:
        TypeError: for other than a list of models, and at evaluation for one whose outputs are weights.
        ValueError: for no models, and for models of different specs, tracks, or numbers or kinds of outputs.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 16, 16, 1)
        >>> model = Ensemble([ws.models.Hybrid(spec, 10, points=8), ws.models.Hybrid(spec, 10, points=8)])
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])
    """

    def __init__(self, models: Sequence[Model]) -> None:
        if not isinstance(models, Sequence) or not all(isinstance(model, Model) for model in models):
            raise TypeError(f"models: expected a list of models of ws.models, got {type(models).__name__}")
        if not models:
            raise ValueError("models: expected at least one, got none")
        for what, found in (
            ("spec", {m.spec for m in models}),
            ("track", {m.track for m in models}),
            ("number of outputs", {m.options["out_features"] for m in models if "out_features" in m.options}),
            ("kind of output", {m.unit for m in models}),
        ):
            if len(found) > 1:
                raise ValueError(f"models: expected models of one {what}, got {len(found)} different ones")
        nn.Module.__init__(self)
        self.models = nn.ModuleList(models)
        order: tuple[Respects, ...] = get_args(Respects)  # each group within the next
        self.respects = order[min(order.index(model.respects) for model in models)]
        self.track = models[0].track
        self.train(models[0].training)

    @property
    def inner(self) -> Model:
        first = self.models[0]
        assert isinstance(first, Model)
        return first

    def _forward(self, weights: Weights) -> Tensor:
        outputs = [model(weights) for model in self.models]
        if not all(isinstance(out, Tensor) for out in outputs):
            raise TypeError("expected models with an invariant head, which give tensors, got weights to weights")
        mean = torch.stack(outputs).mean(0)
        return nn.functional.normalize(mean, dim=-1) if self.unit else mean
