"""Models made of models: embeddings, edits of weights, test-time augmentation and ensembles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._checks import whole_number
from weightspace._symmetry import GROUPS
from weightspace._weights import Weights
from weightspace.models._model import Model, WeightModel
from weightspace.transforms import Transform

GAIN = 0.01
"""Initial step size of an edit: the networks stay nearly as they are."""


@final
class Embedding(WeightModel):
    r"""Scale the outputs of a model to length one, for contrastive objectives and similarity search.

    .. math:: y(w) = m(w) / \lVert m(w) \rVert

    Its equivariance and track are the model's.

    Args:
        model: a model that returns a tensor.

    Raises:
        TypeError: for something other than a model that returns a tensor.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> model = Embedding(ws.models.DWSNet(spec, 16, hidden=4, layers=1, seed=0))
        >>> y = model(ws.Weights(torch.randn(3, spec.num_params), spec))
        >>> torch.allclose(y.norm(dim=1), torch.ones(3))
        True
    """

    name = "embedding"
    model: WeightModel

    def __init__(self, model: WeightModel) -> None:
        _check_tensor_model("model", model)
        super().__init__(
            model.spec, model.out_features, output="embedding", equivariance=model.equivariance, track=model.track
        )
        self.model, self.about, self.training = model, dict(model.about), model.training

    @property
    def config(self) -> dict[str, Any]:
        return {"model": self.model}

    def forward(self, weights: Weights) -> Tensor:
        """Return ``[batch, out_features]``, rows of length one."""
        return F.normalize(_tensor(self.model(weights)), dim=-1)


@final
class Editor(WeightModel):
    r"""Change networks by a learned step that a model computes from their weights.

    .. math:: y(w) = w + g_p \, std_p \, m(w)

    with a learned step size ``g`` per parameter tensor ``p``, 0.01 at first, and the standard deviations of the model's
    normalisation. It starts close to the networks themselves. Its equivariance and track are the model's.

    Args:
        model: a model with ``head="equivariant"`` and one channel.

    Raises:
        TypeError: for something other than a :class:`Model`.
        ValueError: for a model that does not return weights, or returns several channels of them.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> model = Editor(ws.models.DWSNet(spec, 1, hidden=4, layers=1, head="equivariant", seed=0))
        >>> model(ws.Weights(torch.randn(3, spec.num_params), spec))
        Weights(3x105, torch.float32, cpu)

    Reference:
        Zhou et al., *Permutation Equivariant Neural Functionals*, 2023 (weight-space style editing). Departure: steps
        are in units of the weights' standard deviation.
    """

    name = "editor"
    model: Model
    owner: Tensor

    def __init__(self, model: Model) -> None:
        if not isinstance(model, Model):
            raise TypeError(f"model: expected a ws.models.Model, got {type(model).__name__}")
        if model.output != "weights" or model.out_features != 1:
            raise ValueError(
                "expected a model with head='equivariant' and one channel to edit networks with, got "
                f"head={'equivariant' if model.output == 'weights' else 'invariant'!r} and "
                f"out_features={model.out_features}"
            )
        super().__init__(model.spec, 1, output="weights", equivariance=model.equivariance, track=model.track)
        sizes = torch.tensor([math.prod(model.spec.shape(param.name)) for param in model.spec.params])
        owner = torch.arange(len(sizes)).repeat_interleave(sizes, output_size=model.spec.num_params)
        self.model, self.training = model, model.training
        self.register_buffer("owner", owner.to(model.normalize.mean.device), persistent=False)
        self.gain = nn.Parameter(torch.full([len(sizes)], GAIN).to(model.normalize.mean))

    @property
    def config(self) -> dict[str, Any]:
        return {"model": self.model}

    def forward(self, weights: Weights) -> Weights:
        """Return the edited networks."""
        step = self.model(weights)
        assert isinstance(step, Weights)
        change = self.gain[self.owner] * (self.model.normalize.std * step.flat)
        return Weights(weights.flat + change, self.spec)


@final
class Averaged(WeightModel):
    r"""Average a trained model's outputs over each network and transformed copies of it: test-time augmentation.

    .. math:: y(w) = \frac{1}{1 + n} \Big( m(w) + \sum_{i=1}^n m(T_i w) \Big)

    For example, a model that was trained on mirrored images too returns the mean over an image and its mirror image. It
    costs ``n`` further evaluations. In training it is the model itself; it starts in the mode that the model is in.
    Transforms of the coordinates keep the model's equivariance, other transforms leave none. Averages of embeddings are
    scaled to length one again.

    Args:
        model: a trained model that returns a tensor.
        transforms: one copy each. A random transform is drawn once for all networks.
        seed: of the draws, so that the same network always has the same output.

    Raises:
        TypeError: for something other than a model that returns a tensor, and a sequence of transforms.
        ValueError: for no transforms, one that mixes networks, or one that does not fit the model's spec.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Flip
        >>> spec, mirror = ws.siren(2, 16, 16, 1), Flip(1.0, axes=(1,))
        >>> model = Averaged(ws.models.ProbeNet(spec, 10, points=8, seed=0), [mirror]).eval()
        >>> w = ws.Weights(torch.randn(4, spec.num_params), spec)
        >>> torch.allclose(model(w), model(mirror(w, generator=torch.Generator())), atol=1e-5)
        True
    """

    name = "averaged"
    model: WeightModel
    transforms: tuple[Transform, ...]
    seed: int

    def __init__(self, model: WeightModel, transforms: Sequence[Transform], *, seed: int = 0) -> None:
        _check_tensor_model("model", model)
        if not isinstance(transforms, Sequence) or not all(isinstance(t, Transform) for t in transforms):
            raise TypeError(f"transforms: expected a list of transforms, got {transforms!r}")
        if not transforms or any(t.mixes_networks for t in transforms):
            raise ValueError(f"transforms: expected one at least, and none that mixes networks, got {transforms!r}")
        for transform in transforms:
            transform.check(model.spec)
        preserved = all(transform.preserves == "coordinates" for transform in transforms)
        super().__init__(
            model.spec,
            model.out_features,
            output=model.output,
            equivariance=model.equivariance if preserved else "none",
            track=model.track,
        )
        self.model, self.transforms, self.seed = model, tuple(transforms), whole_number("seed", seed, 0)
        self.about, self.training = dict(model.about), model.training

    @property
    def config(self) -> dict[str, Any]:
        return {"model": self.model, "transforms": list(self.transforms), "seed": self.seed}

    def extra_repr(self) -> str:
        return f"transforms={list(self.transforms)}, seed={self.seed}"

    def forward(self, weights: Weights) -> Tensor:
        """Return ``[batch, out_features]``."""
        total = _tensor(self.model(weights))
        if self.training:
            return total
        for copy in _copies(self.transforms, weights, self.seed):
            total = total + _tensor(self.model(copy))
        mean = total / (1 + len(self.transforms))
        return F.normalize(mean, dim=-1) if self.output == "embedding" else mean


@final
class Ensemble(WeightModel):
    r"""Average the outputs of several trained models.

    .. math:: y(w) = \frac{1}{n} \sum_{i=1}^n m_i(w)

    For classes it is the mean of logits. Models trained by one recipe from different seeds make different mistakes, so
    their mean is more accurate than each of them, at ``n`` times the cost. Its equivariance is the smallest group among
    the models'. Means of embeddings are scaled to length one again. It starts in the mode that the first model is in.

    Args:
        models: models of one spec, one track and one number and kind of outputs, which return tensors.

    Raises:
        TypeError: for something other than a sequence of models that return tensors.
        ValueError: for no models, and for models of different specs, tracks, or numbers or kinds of outputs.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 16, 16, 1)
        >>> model = Ensemble([ws.models.ProbeNet(spec, 10, points=8, seed=seed) for seed in range(2)])
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])
    """

    name = "ensemble"

    def __init__(self, models: Sequence[WeightModel]) -> None:
        if not isinstance(models, Sequence) or not all(isinstance(model, WeightModel) for model in models):
            raise TypeError(f"models: expected a list of models of ws.models, got {type(models).__name__}")
        if not models:
            raise ValueError("models: expected at least one, got none")
        for model in models:
            _check_tensor_model("models", model)
        for field, found in (
            ("spec", {m.spec for m in models}),
            ("track", {m.track for m in models}),
            ("number of outputs", {m.out_features for m in models}),
            ("kind of output", {m.output for m in models}),
        ):
            if len(found) > 1:
                raise ValueError(f"models: expected models of one {field}, got {len(found)} different ones")
        first = models[0]
        super().__init__(
            first.spec,
            first.out_features,
            output=first.output,
            equivariance=GROUPS[min(GROUPS.index(model.equivariance) for model in models)],
            track=first.track,
        )
        self.models = nn.ModuleList(models)
        self.about = dict(first.about)
        self.train(first.training)

    @property
    def config(self) -> dict[str, Any]:
        return {"models": list(self.models)}

    def forward(self, weights: Weights) -> Tensor:
        """Return ``[batch, out_features]``."""
        mean = torch.stack([model(weights) for model in self.models]).mean(0)
        return F.normalize(mean, dim=-1) if self.output == "embedding" else mean


def _check_tensor_model(name: str, model: WeightModel) -> None:
    """Raise ``TypeError`` for anything but a model that returns a tensor."""
    if not isinstance(model, WeightModel):
        raise TypeError(f"{name}: expected a model of ws.models, got {type(model).__name__}")
    if model.output == "weights":
        raise TypeError(
            f"{name}: expected a model with an invariant head, which returns a tensor, got {type(model).__name__}, "
            "which returns weights"
        )


def _copies(transforms: Sequence[Transform], weights: Weights, seed: int) -> list[Weights]:
    """Return transformed copies of the networks, one batch per transform, with one draw for all networks."""
    generator = torch.Generator(weights.device).manual_seed(seed)
    same = torch.zeros(len(weights), dtype=torch.int64, device=weights.device)
    draws = [transform.sample(weights[:1], generator=generator)[same] for transform in transforms]
    return [transform.apply(weights, draw) for transform, draw in zip(transforms, draws, strict=True)]


def _tensor(out: Tensor | Weights) -> Tensor:
    assert isinstance(out, Tensor)
    return out
