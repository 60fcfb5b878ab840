"""MixUp in weight space: networks between two networks, with labels between their labels."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from weightspace._checks import number
from weightspace._random import rand
from weightspace._spec import NetSpec
from weightspace._symmetry import Symmetry
from weightspace._weights import Weights, check_weights
from weightspace.transforms._aligners import ALIGN, Align, Aligner, digest, element, name_of, pairwise
from weightspace.transforms._base import Transform
from weightspace.transforms._check import check_input, check_pool
from weightspace.transforms.noise import GaussianNoise
from weightspace.transforms.requirements import SIGNS

_LABELS = ("mixed", "hard")


@dataclass(frozen=True, eq=False)
class MixDraw:
    """A draw of a partner and a share for each network.

    Args:
        partner: the partners' (aligned) parameters, ``[batch, param]``.
        index: int64 ``[batch]``, the number of each partner in the batch or the pool.
        lam: the network's own share, ``[batch]``, or ``[batch, layer]`` with one for each produced axis.
        share: the network's own share in its label, ``[batch]``.
        pooled: whether ``index`` counts the networks of a pool instead of the batch.
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


@dataclass(frozen=True, eq=False)
class MixUp(Transform):
    r"""Mix each network with a partner, and their labels with the same share.

    .. math:: w' = \lambda w + (1 - \lambda) g(v), \quad y' = \lambda y_w + (1 - \lambda) y_v,
              \quad \lambda \sim Beta(\alpha, \alpha)

    where the partner ``v`` is another network of the batch, or one of a pool, and ``g`` moves it along the
    symmetries of its function. Within a batch networks are paired two by two, so that one matching serves both.

    Args:
        align: how ``g`` is found. ``None``: the partner stays as it is; ``"random"``: its neurons are permuted at
            random; the name of a group, ``"permutation"``, ``"signed"``, ``"scaled"`` or ``"full"``: the element that
            :func:`weightspace.align.match` finds; an aligner: any function ``(a, b) -> Symmetry`` of two batches of
            networks with ``g.act(b)`` close to ``a``. The qualified name of an aligner stands in the transform's text,
            by which runs are recognised.
        alpha: parameter of the Beta distribution; 1 is uniform.
        labels: ``"mixed"``, or ``"hard"``: the label of the network with the larger share.
        per_layer: whether each affine layer (the parameters that produce one axis) has its own share; labels mix
            with the mean of the shares, weighted by their number of parameters.
        anchor: one network, for example of :func:`weightspace.align.anchor`. Both networks are aligned to it, and ``g``
            moves the partner to the anchor and from there as the network lies to it, so that each network stays where
            it is among the weights of its function. On networks that are aligned to an anchor already
            (:func:`weightspace.align.align_zoo`) ``align=None`` does the same at no cost; symmetry transforms after it
            scatter the mixture over the weights of its function again.

    Raises:
        TypeError: for an alpha that is not a number, an anchor other than ``Weights``, or, when sampled, an aligner
            that does not return a ``Symmetry``.
        ValueError: for unknown names, alpha <= 0, an anchor of other than one network, or one without a way to align;
            when sampled, for a pool, an anchor or an aligner's ``Symmetry`` that does not fit.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import MixUp
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.Weights(torch.randn(4, 1185, generator=gen), ws.siren(2, 32, 32, 1))
        >>> mixed, soft = MixUp("permutation")(w, torch.tensor([0, 1, 2, 2]), num_classes=3, generator=gen)
        >>> soft.shape, bool(torch.allclose(soft.sum(1), torch.ones(4)))
        (torch.Size([4, 3]), True)
        >>> MixUp(ws.align.match)
        MixUp(align=weightspace.align._matching.match, alpha=1.0, labels='mixed', per_layer=False)

    Reference:
        Shamsian et al., *Improved Generalization of Weight Space Networks via Augmentations*, 2024.
    """

    align: Align | Aligner | None = None
    alpha: float = 1.0
    labels: Literal["mixed", "hard"] = "mixed"
    per_layer: bool = False
    anchor: Weights | None = None
    preserves = "nothing"
    mixes_networks = True

    def __post_init__(self) -> None:
        if not callable(self.align) and self.align not in (None, *ALIGN):
            raise ValueError(
                f"MixUp: expected align to be one of {[None, *ALIGN]} or a function (a, b) -> Symmetry, "
                f"got {self.align!r}"
            )
        if self.labels not in _LABELS:
            raise ValueError(f"MixUp: expected labels to be one of {list(_LABELS)}, got {self.labels!r}")
        number("MixUp", self.alpha, "alpha > 0", above=0)
        if self.anchor is not None:
            _check_anchor(self.anchor, self.align)
        if self.align == "signed":
            object.__setattr__(self, "requires", (SIGNS,))

    def __repr__(self) -> str:
        settings = {field.name: repr(getattr(self, field.name)) for field in fields(self)}
        if callable(self.align):
            settings["align"] = name_of(self.align)
        del settings["anchor"]
        if self.anchor is not None:
            settings["anchor"] = f"<{digest(self.anchor.flat)}>"
        return f"MixUp({', '.join(f'{name}={text}' for name, text in settings.items())})"

    def sample(self, weights: Weights, *, generator: torch.Generator, pool: Weights | None = None) -> MixDraw:
        check_input(weights, generator)
        self.check(weights.spec)
        if pool is not None:
            check_pool(weights, pool)
        index = _partners(weights, pool, generator)
        partner = (weights if pool is None else pool)[index]
        if (g := self._element(weights, partner, index, pooled=pool is not None, generator=generator)) is not None:
            partner = g.act(partner)
        sizes = _layer_sizes(weights.spec) if self.per_layer else (1,)
        lam = _shares((len(weights), len(sizes)), self.alpha, weights, generator)
        share = lam @ torch.tensor(sizes, dtype=lam.dtype, device=lam.device) / sum(sizes)
        return MixDraw(partner.flat, index, lam if self.per_layer else lam[:, 0], share, pool is not None)

    def _element(
        self, weights: Weights, partner: Weights, index: Tensor, *, pooled: bool, generator: torch.Generator
    ) -> Symmetry | None:
        """Return what moves each partner onto its network; ``None`` leaves the partners as they are."""
        if self.align is None:
            return None
        if self.align == "random":
            spec, batch, dtype = weights.spec, len(weights), weights.dtype
            return Symmetry.sample(spec, batch=batch, generator=generator, group="permutation", dtype=dtype)
        if self.anchor is None:
            return element(self.align, weights, partner) if pooled else pairwise(self.align, weights, partner, index)
        anchor = self.anchor.to(weights.flat)[torch.zeros(len(weights), dtype=torch.int64, device=weights.device)]
        own = element(self.align, anchor, weights)
        return own.inverse() @ (element(self.align, anchor, partner) if pooled else own[index])

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
    """A draw for the copy, and the network's own share ``[batch]``."""

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
        alpha: parameter of the Beta distribution; 1 is uniform.

    Raises:
        TypeError: if ``transform`` is not a ``Transform``.
        ValueError: for a transform that mixes networks, or alpha <= 0.

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

    preserves = "nothing"

    def __init__(self, transform: Transform, alpha: float = 1.0) -> None:
        if not isinstance(transform, Transform):
            raise TypeError(f"SelfMixUp: expected a transform, got {type(transform).__name__}: {transform!r}")
        if transform.mixes_networks:
            raise ValueError(
                f"SelfMixUp: expected a transform that mixes no networks, got {transform!r}; use MixUp alone"
            )
        self.members, self.alpha = (transform,), number("SelfMixUp", alpha, "alpha > 0", above=0)

    def __repr__(self) -> str:
        return f"SelfMixUp({self.members[0]!r}, alpha={self.alpha})"

    def sample(self, weights: Weights, *, generator: torch.Generator) -> SelfDraw:
        inner = self.members[0].sample(weights, generator=generator)
        return SelfDraw(inner, _shares((len(weights),), self.alpha, weights, generator))

    def apply(self, weights: Weights, draw: SelfDraw) -> Weights:
        copy = self.members[0].apply(weights, draw.inner)
        return weights.replace(torch.lerp(copy.flat, weights.flat, draw.lam[:, None]))


def _check_anchor(anchor: Weights, align: Align | Aligner | None) -> None:
    check_weights("anchor", anchor)
    if anchor.flat.ndim != 2 or len(anchor) != 1:
        raise ValueError(f"anchor: expected one network [1, param], got {list(anchor.flat.shape)}")
    if align in (None, "random"):
        names = " or ".join(filter(None, (", ".join(map(repr, ALIGN[1:-1])), repr(ALIGN[-1]))))
        raise ValueError(
            f"MixUp: expected align {names}, or an aligner, with an anchor, got {align!r}; name the group, "
            "or leave the anchor out for networks that are aligned already"
        )


def _shares(shape: tuple[int, ...], alpha: float, weights: Weights, generator: torch.Generator) -> Tensor:
    """Draw from Beta(alpha, alpha) by inversion of its distribution function."""
    u = rand(shape, generator=generator, dtype=torch.float64)
    if alpha != 1:
        from scipy.special import betaincinv  # takes a while to load, and uniform shares need none

        u = torch.from_numpy(betaincinv(alpha, alpha, u.cpu().numpy()))
    return u.to(weights.flat)


def _partners(weights: Weights, pool: Weights | None, generator: torch.Generator) -> Tensor:
    """Pair the batch two by two at random, the last three of an odd batch in a cycle; or draw from the pool."""
    u = rand((len(weights),), generator=generator, dtype=torch.float64, device=weights.device)
    if pool is not None:
        return (u * len(pool)).long()
    order, paired = u.argsort(), len(u) - 3 * (len(u) % 2)
    partner = torch.cat([order[:paired].reshape(-1, 2).flip(1).flatten(), order[max(0, paired) :].roll(1)])
    return torch.empty_like(order).scatter_(0, order, partner)


def _layers(spec: NetSpec) -> tuple[str, ...]:
    return tuple(dict.fromkeys(param.produces for param in spec.params))


def _layer_sizes(spec: NetSpec) -> tuple[int, ...]:
    """Return the number of parameters that produce each axis."""
    counts = dict.fromkeys(_layers(spec), 0)
    for param in spec.params:
        counts[param.produces] += spec.slices[param.name].stop - spec.slices[param.name].start
    return tuple(counts.values())


def _layer_of_entry(weights: Weights) -> Tensor:
    """Return the number of the layer that each entry of the flat vector belongs to."""
    spec, layers = weights.spec, _layers(weights.spec)
    out = torch.empty(spec.num_params, dtype=torch.int64, device=weights.device)
    for param in spec.params:
        out[spec.slices[param.name]] = layers.index(param.produces)
    return out


NAMED: dict[str, Transform] = {
    "mixup": MixUp(),
    "mixup-weights-only": MixUp(labels="hard"),
    "mixup-random": MixUp("random"),
    "mixup-permutation": MixUp("permutation"),
    "mixup-signed": MixUp("signed"),
    "mixup-full": MixUp("full"),
    "mixup-per-layer": MixUp("permutation", per_layer=True),
    "mixup-self": SelfMixUp(GaussianNoise(0.2)),
}
"""Entries of the registry, each with the strength that its name stands for."""
