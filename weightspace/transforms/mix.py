"""MixUp in weight space: networks between two networks, with labels between their labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from scipy.special import betaincinv
from torch import Tensor

from weightspace._checks import number, probability
from weightspace._random import rand
from weightspace._spec import NetSpec
from weightspace._symmetry import Symmetry
from weightspace._weights import Weights, check_weights
from weightspace.align._elements import row_of
from weightspace.align._matching import joined, match
from weightspace.align.solver._problem import Group
from weightspace.transforms._base import Transform
from weightspace.transforms._check import check_input, check_pool, need_scale

Align = Literal["random", "permutation", "signed", "full"]
_ALIGN = (None, "random", "permutation", "signed", "full")
_LABELS = ("mixed", "hard")


@dataclass(frozen=True, eq=False)
class MixDraw:
    """A partner and a share for each network.

    Args:
        partner: the partners' (aligned) parameters, ``[batch, param]``.
        index: int64 ``[batch]``, which network of the batch or pool each partner is.
        lam: the network's own share, ``[batch]``, or ``[batch, layer]`` with one for each produced axis.
        share: the network's own share in its label, ``[batch]``.
        pooled: whether ``index`` counts in a pool, not in the batch.
    """

    partner: Tensor
    index: Tensor
    lam: Tensor
    share: Tensor
    pooled: bool = False

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: slice | Tensor) -> MixDraw:
        return MixDraw(self.partner[index], self.index[index], self.lam[index], self.share[index], self.pooled)


@dataclass(frozen=True)
class MixUp(Transform):
    r"""Mix each network with a partner, and their labels with the very same share.

    .. math:: w' = \lambda w + (1 - \lambda) g(v), \quad y' = \lambda y_w + (1 - \lambda) y_v,
              \quad \lambda \sim Beta(\alpha, \alpha)

    where the partner ``v`` is another network of the batch, or one of a pool, and ``g`` moves it along the
    symmetries of its function. Within a batch networks are paired two by two, so that one matching serves both.

    Args:
        align: how ``g`` is found. ``None``: the partner as it is; ``"random"``: a random permutation of its
            neurons; ``"permutation"``, ``"signed"``, ``"full"``: the element of that group which brings it closest to
            the network, see :func:`weightspace.align.match`.
        alpha: of the Beta distribution; 1 is uniform.
        labels: ``"mixed"``, or ``"hard"`` for weights only: the label of the network with the larger share.
        per_layer: an independent share for each affine layer (the parameters that produce one axis); labels mix
            with the mean of the shares, weighted by their number of parameters.
        low: the share for a Beta variable of 0.
        high: the share for a Beta variable of 1.
        anchor: one network, for example of :func:`weightspace.align.anchor`. Both networks are aligned to it, and the
            partner is taken along: ``g`` is the partner's way to the anchor and the network's way back, so that each
            network stays where it is among the weights of its function. On networks that lie at an anchor already
            (:func:`weightspace.align.canonicalize`, :func:`weightspace.align.align_zoo`) ``align=None`` does the same and
            costs nothing; there, symmetry transforms behind it scatter the mixture over its function's weights again.

    Raises:
        TypeError: for numbers that are none, or an anchor other than ``Weights``.
        ValueError: for unknown names, alpha <= 0, bounds out of order, or an anchor of other than one network or
            without a group to align in; when sampled, for a pool or an anchor that does not fit.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import MixUp
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.Weights(torch.randn(4, 1185, generator=gen), ws.siren(2, 32, 32, 1))
        >>> mixed, soft = MixUp("permutation")(w, torch.tensor([0, 1, 2, 2]), num_classes=3, generator=gen)
        >>> soft.shape, bool(torch.allclose(soft.sum(1), torch.ones(4)))
        (torch.Size([4, 3]), True)

    Reference:
        Shamsian et al., *Improved Generalization of Weight Space Networks via Augmentations*, 2024.
    """

    align: Align | None = None
    alpha: float = 1.0
    labels: Literal["mixed", "hard"] = "mixed"
    per_layer: bool = False
    low: float = 0.0
    high: float = 1.0
    anchor: Weights | None = None
    keeps = "nothing"
    mixes = True

    def __post_init__(self) -> None:
        if self.align not in _ALIGN:
            raise ValueError(f"MixUp: expected align to be one of {list(_ALIGN)}, got {self.align!r}")
        if self.labels not in _LABELS:
            raise ValueError(f"MixUp: expected labels to be one of {list(_LABELS)}, got {self.labels!r}")
        _check_share("MixUp", self.alpha, self.low, self.high)
        if self.anchor is not None:
            _check_anchor(self.anchor, self.align)
        if self.align == "signed":
            object.__setattr__(self, "needs", (need_scale("sign", "sine, tanh, gaussian"),))

    def __repr__(self) -> str:
        settings = [f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.name != "anchor"]
        if self.anchor is not None:
            numbers = self.anchor.flat.detach().to("cpu", torch.float64).numpy().tobytes()
            settings.append(f"anchor=<{hashlib.sha256(numbers).hexdigest()[:12]}>")
        return f"MixUp({', '.join(settings)})"

    def sample(self, weights: Weights, *, generator: torch.Generator, pool: Weights | None = None) -> MixDraw:
        check_input(weights, generator)
        self.check(weights.spec)
        if pool is not None:
            check_pool(weights, pool)
        index = _partners(weights, pool, generator)
        partner = (weights if pool is None else pool)[index]
        if self.align == "random":
            element = Symmetry.sample(
                weights.spec, batch=len(weights), generator=generator, group="permutation", dtype=weights.dtype
            )
            partner = element.act(partner)
        elif self.align is not None and self.anchor is not None:
            partner = self._over_anchor(weights, pool, index).act(partner)
        elif self.align is not None:
            partner = _onto(weights, partner, None if pool is not None else index, self.align).act(partner)
        sizes = _layer_sizes(weights.spec) if self.per_layer else (1,)
        lam = _shares((len(weights), len(sizes)), self.alpha, self.low, self.high, weights, generator)
        share = lam @ torch.tensor(sizes, dtype=lam.dtype, device=lam.device) / sum(sizes)
        return MixDraw(partner.flat, index, lam if self.per_layer else lam[:, 0], share, pool is not None)

    def _over_anchor(self, weights: Weights, pool: Weights | None, index: Tensor) -> Symmetry:
        """Each partner's way to the anchor, and from there back to the network."""
        assert self.anchor is not None
        assert self.align is not None
        assert self.align != "random"
        anchor = self.anchor.to(weights.flat)
        own = match(anchor, weights, group=self.align)
        theirs = own[index] if pool is None else match(anchor, pool[index], group=self.align)
        return own.inverse() @ theirs

    def apply(self, weights: Weights, draw: MixDraw) -> Weights:
        lam = draw.lam[:, None] if draw.lam.ndim == 1 else draw.lam[:, _layer_of_entry(weights)]
        return weights.replace(torch.lerp(draw.partner, weights.flat, lam))

    def apply_labels(self, soft: Tensor, draw: MixDraw, *, pool: Tensor | None = None) -> Tensor:
        if draw.pooled and pool is None:
            raise ValueError("pool: expected the labels of the pool that the partners come from, got none; pass pool=")
        partner = (soft if pool is None else pool)[draw.index]
        share = draw.share.to(soft)
        if self.labels == "hard":
            share = (share >= 0.5).to(soft)
        return torch.lerp(partner, soft, share[:, None])


@dataclass(frozen=True, eq=False)
class SelfDraw:
    """The draw that makes the copy, and the network's own share ``[batch]``."""

    inner: Any
    lam: Tensor

    def __len__(self) -> int:
        return len(self.lam)

    def __getitem__(self, index: slice | Tensor) -> SelfDraw:
        return SelfDraw(self.inner[index], self.lam[index])


class SelfMixUp(Transform):
    r"""Mix each network with an augmented copy of itself; its label stays.

    .. math:: w' = \lambda w + (1 - \lambda) T(w), \qquad \lambda \sim Beta(\alpha, \alpha)

    Args:
        transform: makes the copy; it must not mix networks itself.
        alpha: of the Beta distribution; 1 is uniform.
        low: the share for a Beta variable of 0.
        high: the share for a Beta variable of 1.

    Raises:
        TypeError: if ``transform`` is no ``Transform``.
        ValueError: for a transform that mixes networks, alpha <= 0, or bounds out of order.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Permute, SelfMixUp
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.Weights(torch.randn(4, 1185, generator=gen), ws.siren(2, 32, 32, 1))
        >>> SelfMixUp(Permute())(w, torch.tensor([0, 1, 0, 1]), num_classes=2, generator=gen)[1][0]
        tensor([1., 0.])

    Reference:
        Shamsian et al., *Improved Generalization of Weight Space Networks via Augmentations*, 2024.
    """

    keeps = "nothing"

    def __init__(self, transform: Transform, alpha: float = 1.0, low: float = 0.0, high: float = 1.0) -> None:
        if not isinstance(transform, Transform):
            raise TypeError(f"SelfMixUp: expected a transform, got {type(transform).__name__}: {transform!r}")
        if transform.mixes:
            raise ValueError(
                f"SelfMixUp: expected a transform that mixes no networks, got {transform!r}; use MixUp alone"
            )
        _check_share("SelfMixUp", alpha, low, high)
        self.transform, self.alpha, self.low, self.high = transform, float(alpha), float(low), float(high)
        self.needs = transform.needs

    def __repr__(self) -> str:
        return f"SelfMixUp({self.transform!r}, alpha={self.alpha}, low={self.low}, high={self.high})"

    def sample(self, weights: Weights, *, generator: torch.Generator) -> SelfDraw:
        inner = self.transform.sample(weights, generator=generator)
        return SelfDraw(inner, _shares((len(weights),), self.alpha, self.low, self.high, weights, generator))

    def apply(self, weights: Weights, draw: SelfDraw) -> Weights:
        copy = self.transform.apply(weights, draw.inner)
        return weights.replace(torch.lerp(copy.flat, weights.flat, draw.lam[:, None]))


def _check_share(owner: str, alpha: float, low: float, high: float) -> None:
    number(owner, alpha, "alpha > 0", above=0)
    if probability(owner, high, "high") < probability(owner, low, "low"):
        raise ValueError(f"{owner}: expected 0 <= low <= high <= 1, got low={low} and high={high}")


def _check_anchor(anchor: Weights, align: Align | None) -> None:
    check_weights("anchor", anchor)
    if anchor.flat.ndim != 2 or len(anchor) != 1:
        raise ValueError(f"anchor: expected one network [1, param], got {list(anchor.flat.shape)}")
    if align in (None, "random"):
        raise ValueError(
            f"MixUp: expected align 'permutation', 'signed' or 'full' with an anchor, got {align!r}; name the group, "
            "or leave the anchor out for networks that are aligned already"
        )


def _shares(
    shape: tuple[int, ...], alpha: float, low: float, high: float, weights: Weights, generator: torch.Generator
) -> Tensor:
    """Beta(alpha, alpha) by inversion of its distribution function, mapped to [low, high]."""
    u = rand(shape, generator=generator, dtype=torch.float64)
    if alpha != 1:
        u = torch.from_numpy(betaincinv(alpha, alpha, u.cpu().numpy()))
    return (low + (high - low) * u).to(weights.flat)


def _partners(weights: Weights, pool: Weights | None, generator: torch.Generator) -> Tensor:
    """Two by two at random, the last three of an odd batch in a cycle; or any network of the pool."""
    u = rand((len(weights),), generator=generator, dtype=torch.float64, device=weights.device)
    if pool is not None:
        return (u * len(pool)).long()
    order, paired = u.argsort(), len(u) - 3 * (len(u) % 2)
    partner = torch.cat([order[:paired].reshape(-1, 2).flip(1).flatten(), order[max(0, paired) :].roll(1)])
    return torch.empty_like(order).scatter_(0, order, partner)


def _onto(weights: Weights, partner: Weights, index: Tensor | None, group: Group) -> Symmetry:
    """What moves each partner onto its network; two networks that are each other's partner are matched once.

    The way back is the inverse, and as good: permutations, signs and phases change no distance. Positive scales do.
    """
    if index is None or (group == "full" and any(row_of(a).scale == "positive" for a in weights.spec.hidden)):
        return match(weights, partner, group=group)
    here = torch.arange(len(index), device=index.device)
    once = (index[index] != here) | (here <= index)
    found = match(weights[once], partner[once], group=group)
    back = found[(once.cumsum(0) - 1)[index[~once]]].inverse()
    return joined([found, back])[torch.cat([here[once], here[~once]]).argsort()]


def _layers(spec: NetSpec) -> tuple[str, ...]:
    return tuple(dict.fromkeys(param.produces for param in spec.params))


def _layer_sizes(spec: NetSpec) -> tuple[int, ...]:
    """Number of parameters that produce each axis."""
    counts = dict.fromkeys(_layers(spec), 0)
    for param in spec.params:
        counts[param.produces] += spec.slices[param.name].stop - spec.slices[param.name].start
    return tuple(counts.values())


def _layer_of_entry(weights: Weights) -> Tensor:
    """For each scalar of the flat vector, the number of its layer."""
    spec, layers = weights.spec, _layers(weights.spec)
    out = torch.empty(spec.num_params, dtype=torch.int64, device=weights.device)
    for param in spec.params:
        out[spec.slices[param.name]] = layers.index(param.produces)
    return out
