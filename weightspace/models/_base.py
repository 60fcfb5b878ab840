"""What every model on weights shares: a spec, a normalisation of its input, and the group it respects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from weightspace._checks import probability, whole_number
from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights, check_weights, summary

Respects = Literal["nothing", "permutation"]


class Normalize(nn.Module):
    r"""Shift and scale the weights by statistics of the training split, ``(w - mean) / std``.

    With ``per="tensor"`` all entries of a parameter that a hidden axis' permutation can exchange share one mean and
    one standard deviation, so the layer commutes with permutations. ``per="entry"`` gives every scalar its own, which
    is for models without symmetry.

    Args:
        spec: the networks to normalise.
        per: what shares its statistics.

    Raises:
        TypeError: for something other than a ``NetSpec``.
        ValueError: for another ``per``.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> w = ws.Weights(3 + 2 * torch.randn(64, spec.num_params), spec)
        >>> layer = Normalize(spec).fit(w)
        >>> abs(layer(w).flat.mean().item()) < 1e-5
        True
    """

    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(self, spec: NetSpec, per: Literal["tensor", "entry"] = "tensor") -> None:
        super().__init__()
        check_spec(spec)
        if per not in ("tensor", "entry"):
            raise ValueError(f"per: expected 'tensor' or 'entry', got {per!r}")
        self.spec, self.per = spec, per
        self.register_buffer("mean", torch.zeros(spec.num_params))
        self.register_buffer("std", torch.ones(spec.num_params))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, weights: Weights) -> Normalize:
        """Take the statistics of these networks: the training split's, never another's.

        Raises:
            ValueError: for networks of another spec, fewer than two of them, or numbers that are not finite.
        """
        same_spec(self.spec, weights)
        if weights.flat.ndim != 2 or len(weights) < 2:
            raise ValueError(
                f"expected weights [batch, param] of at least 2 networks to take statistics of, "
                f"got {list(weights.flat.shape)}"
            )
        if bad := int((~torch.isfinite(weights.flat).all(1)).sum()):
            raise ValueError(f"expected finite weights, got {bad} networks with NaN or infinity; leave them out")
        for param in self.spec.params:
            value, where = weights.view(param.name).double(), self.spec.slices[param.name]
            axes = [0]
            if self.per == "tensor":
                axes += [i for i, name in enumerate(param.axes, start=1) if self.spec.axis(name).hidden]
            mean, std = value.mean(axes, keepdim=True), value.std(axes, keepdim=True)
            self.mean[where] = mean.expand_as(value[:1]).flatten().to(self.mean)
            self.std[where] = torch.where(std > 1e-8, std, 1.0).expand_as(value[:1]).flatten().to(self.std)
        self.fitted.fill_(True)
        return self

    def forward(self, weights: Weights) -> Weights:
        same_spec(self.spec, weights)
        return weights.replace((weights.flat - self.mean) / self.std)


class Model(nn.Module, ABC):
    """A network on networks.

    Subclasses state in ``respects`` under which group their output is invariant (or equivariant, for weights to
    weights); the contract suite derives its tests from it. ``normalize`` holds the training split's statistics, which
    :func:`weightspace.train` takes before the first step.
    """

    respects: Respects

    def __init__(self, spec: NetSpec, normalize: Normalize) -> None:
        super().__init__()
        self.spec = spec
        self.normalize = normalize

    def forward(self, weights: Weights) -> Tensor | Weights:
        """``Weights`` to ``[batch, out]``, or to ``Weights`` for an equivariant head.

        Raises:
            TypeError: for a plain tensor, or weights of a finer dtype than the model's.
            ValueError: for networks of another spec, an empty batch, or features where raw weights belong.
        """
        same_spec(self.spec, weights)
        if weights.flat.ndim != 2 or not len(weights):
            raise ValueError(
                f"expected weights [batch, param] with at least one network, got {list(weights.flat.shape)}"
            )
        own = self.normalize.mean.dtype
        if torch.promote_types(weights.dtype, own) != own:
            raise TypeError(f"expected weights of the model's {own}, got {weights.dtype}; cast one with .to(dtype)")
        return self._forward(self.normalize(weights))

    @abstractmethod
    def _forward(self, weights: Weights) -> Tensor | Weights:
        """The model proper, on normalised weights."""

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


def check_sizes(out_features: int, hidden: int, layers: int, dropout: float) -> None:
    """Raise ``TypeError`` or ``ValueError`` for sizes that no model can have."""
    whole_number("out_features", out_features)
    whole_number("hidden", hidden, 2)
    whole_number("layers", layers)
    probability("dropout", dropout)


def check_features(spec: NetSpec, features: Weights, channels: int) -> None:
    """Raise ``ValueError`` unless these are features of networks of this spec, with so many channels."""
    same_spec(spec, features)
    if features.flat.ndim != 3 or features.flat.shape[2] != channels or not len(features):
        raise ValueError(
            f"expected features [batch, param, {channels}] of at least one network, got {list(features.flat.shape)}"
        )


def same_spec(spec: NetSpec, weights: Weights) -> None:
    """Raise unless ``weights`` are ``Weights`` of this spec."""
    check_weights("weights", weights)
    if weights.spec != spec:
        raise ValueError(f"the model is built for {summary(spec)}, got networks of {summary(weights.spec)}")
