"""What every model on weights shares: a spec, a normalisation of its input, and the group it respects."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from weightspace._checks import probability, whole_number
from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights, check_built_for

Respects = Literal["nothing", "permutation", "signed", "scaled", "full"]
Track = Literal["weights-only", "hybrid", "function"]
Head = Literal["invariant", "equivariant"]
GAIN = 0.01  # of an edit at first: the networks as they are, nearly


class Normalize(nn.Module):
    r"""Shift and scale the weights by statistics of the training split, ``(w - mean) / std``.

    With ``per="tensor"`` all entries of a parameter that a hidden axis' permutation can exchange share one mean and
    one standard deviation, so the layer commutes with permutations. ``per="entry"`` gives every scalar its own, which
    is for models without symmetry, and ``per="nothing"`` leaves the weights alone, for models that evaluate them.

    Without ``center`` nothing is subtracted and what remains is a factor, the root of the mean square: it commutes
    with signs and scales too. With ``fold`` the phases of periodic neurons are folded first (:func:`fold_phases`).

    Args:
        spec: the networks to normalise.
        per: what shares its statistics.
        center: whether to subtract the mean.
        fold: whether to fold phases before anything else.

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

    def __init__(
        self,
        spec: NetSpec,
        per: Literal["tensor", "entry", "nothing"] = "tensor",
        *,
        center: bool = True,
        fold: bool = False,
    ) -> None:
        super().__init__()
        check_spec(spec)
        if per not in ("tensor", "entry", "nothing"):
            raise ValueError(f"per: expected 'tensor', 'entry' or 'nothing', got {per!r}")
        self.spec, self.per, self.center, self.fold = spec, per, center, fold
        self.register_buffer("mean", torch.zeros(spec.num_params))
        self.register_buffer("std", torch.ones(spec.num_params))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, weights: Weights) -> Normalize:
        """Take the statistics of these networks: the training split's, never another's.

        Raises:
            ValueError: for networks of another spec, fewer than two of them, or numbers that are not finite.
        """
        check_built_for(self.spec, weights)
        if weights.flat.ndim != 2 or len(weights) < 2:
            raise ValueError(
                f"expected weights [batch, param] of at least 2 networks to take statistics of, "
                f"got {list(weights.flat.shape)}"
            )
        if bad := int((~torch.isfinite(weights.flat).all(1)).sum()):
            raise ValueError(f"expected finite weights, got {bad} networks with NaN or infinity; leave them out")
        weights = fold_phases(weights) if self.fold else weights
        for param in self.spec.params if self.per != "nothing" else ():
            value, where = weights.view(param.name).double(), self.spec.slices[param.name]
            axes = [0]
            if self.per == "tensor":
                axes += [i for i, name in enumerate(param.axes, start=1) if self.spec.axis(name).hidden]
            mean, std = value.mean(axes, keepdim=True), value.std(axes, keepdim=True)
            if not self.center:
                mean, std = torch.zeros_like(mean), value.square().mean(axes, keepdim=True).sqrt()
            self.mean[where] = mean.expand_as(value[:1]).flatten().to(self.mean)
            self.std[where] = torch.where(std > 1e-8, std, 1.0).expand_as(value[:1]).flatten().to(self.std)
        self.fitted.fill_(True)
        return self

    def forward(self, weights: Weights) -> Weights:
        check_built_for(self.spec, weights)
        if self.per == "nothing":
            return weights.replace(weights.flat.to(self.mean.dtype))
        weights = fold_phases(weights) if self.fold else weights
        return weights.replace((weights.flat - self.mean) / self.std)

    def undo(self, weights: Weights) -> Weights:
        """The weights as they were before :meth:`forward`, up to folded phases."""
        return weights.replace(weights.flat * self.std + self.mean)


class Model(nn.Module, ABC):
    """A network on networks.

    Subclasses state as data what the contract suite derives its tests from:

    - ``respects``: the group under which the output is invariant (or equivariant, for weights to weights), by the
      names of :func:`weightspace.testing.random_symmetry`, and no larger one;
    - ``track``: ``"weights-only"`` evaluates a network at no input, ``"hybrid"`` reads activations at learned inputs
      besides the weights, ``"function"`` reads outputs alone;
    - ``heads``: what ``head=`` takes.

    ``normalize`` holds the training split's statistics, which :func:`weightspace.training` takes before the first step.
    """

    respects: Respects
    track: Track = "weights-only"
    heads: tuple[str, ...] = ("invariant",)
    unit = False  # whether outputs are scaled to length one: embeddings
    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        model = super().__new__(cls)
        object.__setattr__(model, "_given", (args, options))
        return model

    def __init__(self, spec: NetSpec, normalize: Normalize) -> None:
        super().__init__()
        self.spec = spec
        self.normalize = normalize
        self._edit: _Edit | None = None
        _ = spec.slices, spec.num_params, spec.hidden  # known from here on: a compiler cannot look them up

    def forward(self, weights: Weights) -> Tensor | Weights:
        """``Weights`` to ``[batch, out]``, or to ``Weights`` for an equivariant head.

        Raises:
            TypeError: for a plain tensor, or weights of a finer dtype than the model's.
            ValueError: for networks of another spec, an empty batch, features where raw weights belong, or numbers
                that are not finite.
        """
        check_built_for(self.spec, weights)
        if weights.flat.ndim != 2 or not len(weights):
            raise ValueError(
                f"expected weights [batch, param] with at least one network, got {list(weights.flat.shape)}"
            )
        own = self.normalize.mean.dtype
        if torch.promote_types(weights.dtype, own) != own:
            raise TypeError(f"expected weights of the model's {own}, got {weights.dtype}; cast one with .to(dtype)")
        if not torch.compiler.is_compiling() and not bool(torch.isfinite(weights.flat.detach().sum())):
            _check_finite(weights)
        out = self._forward(self.normalize(Weights(weights.flat, self.spec)))
        edit = getattr(self, "_edit", None)  # models that were pickled before there were editors have none
        if edit is not None and isinstance(out, Weights):
            return Weights(weights.flat + edit(self.normalize.std * out.flat), self.spec)
        return nn.functional.normalize(out, dim=-1) if self.unit and isinstance(out, Tensor) else out

    @abstractmethod
    def _forward(self, weights: Weights) -> Tensor | Weights:
        """The model proper, on normalised weights."""

    def edits(self) -> Self:
        r"""Make weights to weights an edit: :math:`w + g_p \, std_p \, m(w)`, with a learned ``g`` for each parameter.

        It begins close to the networks themselves, and respects what the model did.

        Raises:
            ValueError: for a model that gives no weights, or several channels of them.

        Reference:
            Zhou et al., *Permutation Equivariant Neural Functionals*, 2023 (weight-space style editing). Departure:
            steps are in units of the weights' spread.
        """
        args, options = self._given
        bound = inspect.signature(type(self).__init__).bind(self, *args, **options)
        bound.apply_defaults()
        head, channels = (bound.arguments.get(name) for name in ("head", "out_features"))
        if head != "equivariant" or channels != 1:
            raise ValueError(
                "expected a model with head='equivariant' and one channel to edit networks with, "
                f"got head={head!r} and out_features={channels!r}"
            )
        self._edit = _Edit(self.spec).to(self.normalize.mean)
        return self

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    @property
    def options(self) -> dict[str, Any]:
        """What :func:`build` made the model with, besides its name and spec."""
        args, options = self._given
        bound = inspect.signature(type(self).__init__).bind(self, *args, **options)
        head = "embedding" if self.unit else "editing" if getattr(self, "_edit", None) is not None else None
        own = {name: value for name, value in bound.arguments.items() if name not in ("self", "spec")}
        return own | ({"head": head} if head else {})


class Wrapper(Model):
    """A model made of models: it reads what ``inner`` reads, which checks and normalises."""

    @property
    @abstractmethod
    def inner(self) -> Model:
        """The model, or the first of them."""

    @property
    def spec(self) -> NetSpec:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.spec

    @property
    def normalize(self) -> Normalize:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.normalize

    @property
    def unit(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.unit

    def forward(self, weights: Weights) -> Tensor | Weights:
        return self._forward(weights)


class _Edit(nn.Module):
    """A learned share of a step for each parameter of the networks."""

    owner: Tensor

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        sizes = torch.tensor([math.prod(spec.shape(param.name)) for param in spec.params])
        self.register_buffer("owner", torch.arange(len(sizes)).repeat_interleave(sizes), persistent=False)
        self.gain = nn.Parameter(torch.full([len(sizes)], GAIN))

    def forward(self, step: Tensor) -> Tensor:
        return self.gain[self.owner] * step


def _check_finite(weights: Weights) -> None:
    """A sum can overflow where no entry is infinite: look at the entries before refusing."""
    if bad := int((~torch.isfinite(weights.flat).all(1)).sum()):
        raise ValueError(f"expected finite weights, got {bad} networks with NaN or infinity; leave them out")


def fold_phases(weights: Weights) -> Weights:
    r"""Bring the bias of every periodic neuron to within half a unit of zero, the function kept.

    With ``unit = pi / omega`` and ``r = round(b / unit)``: the bias becomes ``b - r unit``, and what the neuron sends
    on is multiplied by ``(-1) ** r``. Networks that differ by phases alone become equal. At half a unit, a set of
    measure zero, the choice jumps.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> w = ws.testing.random_weights(spec, 3, generator=gen)
        >>> g = ws.Symmetry.sample(spec, batch=3, generator=gen, parts=("shift",))
        >>> torch.allclose(fold_phases(g.act(w)).flat, fold_phases(w).flat, atol=1e-5)
        True

    Reference:
        Kalogeropoulos et al., *Scale Equivariant Graph Metanetworks*, 2024, appendix on phase canonicalisation.
    """
    spec, parts = weights.spec, dict(weights.items())
    for axis in spec.hidden:
        row = axis.symmetry
        biases = [p.name for p in spec.params if p.kind == "bias" and p.produces == axis.name]
        if not row.periodic or len(biases) != 1:
            continue
        steps = (parts[biases[0]].detach() / axis.phase_step).round()
        parts[biases[0]] = parts[biases[0]] - steps * axis.phase_step
        factor = 1 - 2 * steps.remainder(2)
        for param in spec.params:
            if param.consumes == axis.name:
                value = parts[param.name]
                parts[param.name] = value * factor.reshape(len(weights), 1, -1, *[1] * (value.ndim - 3))
    return weights.replace(torch.cat([parts[p.name].flatten(1) for p in spec.params], 1))


def normed_mlp(
    inputs: int, hidden: int, layers: int, out_features: int, dropout: float, norm: Callable[[int], nn.Module]
) -> nn.Sequential:
    """Linear maps with a norm, ReLU and dropout after each but the last."""
    blocks: list[nn.Module] = []
    for i in range(layers):
        blocks += [nn.Linear(hidden if i else inputs, hidden), norm(hidden), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*blocks, nn.Linear(hidden, out_features))


class BatchNorm(nn.BatchNorm1d):
    """A batch norm of features that takes a batch of one in training too, by its running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and len(input) == 1:
            mean, variance = self.running_mean, self.running_var
            return nn.functional.batch_norm(input, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(input)


def check_sizes(out_features: int, hidden: int, layers: int, dropout: float) -> None:
    """Raise ``TypeError`` or ``ValueError`` for sizes that no model can have."""
    whole_number("out_features", out_features)
    whole_number("hidden", hidden, 2)
    whole_number("layers", layers)
    probability("dropout", dropout)


def check_head(head: str, heads: tuple[str, ...]) -> None:
    """Raise ``ValueError`` for a head that the model does not have."""
    if head not in heads:
        raise ValueError(f"head: expected {' or '.join(map(repr, heads))}, got {head!r}")
