"""A trained model's outputs averaged over moved copies of every network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._weights import Weights
from weightspace.models._base import Model, Wrapper
from weightspace.transforms import Transform


class Averaged(Wrapper):
    r"""A trained model's outputs, averaged over every network and copies of it that transforms have moved.

    .. math:: y(w) = \frac{1}{1 + n} \Big( m(w) + \sum_{i=1}^n m(T_i w) \Big)

    Test-time augmentation: for classes that a mirrored signal keeps, a model trained on mirrored copies too gives the
    mean of both. Costs ``n`` evaluations more. It begins in the mode that the model is in; in training it is the model
    itself. Movements of the coordinates leave the group that it respects as it is; other transforms leave nothing.

    Args:
        model: a trained model with an invariant head.
        transforms: one copy each. Those that draw make one draw for all networks.
        seed: of the draws: the same network always gives the same output.

    Raises:
        TypeError: for other than a model and transforms.
        ValueError: for no transforms, one that mixes networks, or one that does not fit the model's spec.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Flip
        >>> spec = ws.siren(2, 16, 16, 1)
        >>> model = Averaged(ws.models.Hybrid(spec, 10, points=8), [Flip(1.0, axes=(1,))]).eval()
        >>> w = ws.Weights(torch.randn(4, spec.num_params), spec)
        >>> mirrored = Flip(1.0, axes=(1,))(w, generator=torch.Generator())
        >>> torch.allclose(model(w), model(mirrored), atol=1e-5)
        True
    """

    def __init__(self, model: Model, transforms: Sequence[Transform], *, seed: int = 0) -> None:
        if not isinstance(model, Model):
            raise TypeError(f"model: expected a model of ws.models, got {type(model).__name__}")
        if not isinstance(transforms, Sequence) or not all(isinstance(t, Transform) for t in transforms):
            raise TypeError(f"transforms: expected a list of transforms, got {transforms!r}")
        if not transforms or any(t.mixes_networks for t in transforms):
            raise ValueError(f"transforms: expected one at least, and none that mixes networks, got {transforms!r}")
        for transform in transforms:
            transform.check(model.spec)
        nn.Module.__init__(self)
        self.model, self.transforms, self.seed = model, tuple(transforms), whole_number("seed", seed, 0)
        moved = all(transform.preserves == "coordinates" for transform in transforms)
        self.respects, self.track = model.respects if moved else "nothing", model.track
        self.train(model.training)

    def extra_repr(self) -> str:
        return f"transforms={list(self.transforms)}, seed={self.seed}"

    @property
    def inner(self) -> Model:
        return self.model

    def _forward(self, weights: Weights) -> Tensor | Weights:
        out = self.model(weights)
        if self.training:
            return out
        if not isinstance(out, Tensor):
            raise TypeError("expected a model with an invariant head, which gives a tensor, got weights to weights")
        generator = torch.Generator(weights.device).manual_seed(self.seed)
        same = torch.zeros(len(weights), dtype=torch.int64, device=weights.device)
        total = out
        for transform in self.transforms:
            draw = transform.sample(weights[:1], generator=generator)
            total = total + self.model(transform.apply(weights, draw[same]))
        mean = total / (1 + len(self.transforms))
        return nn.functional.normalize(mean, dim=-1) if self.model.unit else mean
