"""Transforms along the symmetry group: other weights, the same function."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from weightspace._checks import number, probability, whole_number
from weightspace._random import rand
from weightspace._symmetry import Part, Symmetry
from weightspace._weights import Weights
from weightspace.transforms._base import Transform
from weightspace.transforms._check import check_input
from weightspace.transforms.requirements import HIDDEN, HIDDEN_BIAS, LINEAR_AXIS, PERIODIC, POSITIVE_SCALES, SIGNS


@dataclass(frozen=True)
class Permute(Transform):
    """Permute the neurons of every hidden axis, uniformly at random; heads of attention move as wholes.

    Raises:
        ValueError: when sampled, for networks without a hidden axis.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Permute
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.Weights(torch.randn(4, 1185, generator=gen), ws.siren(2, 32, 32, 1))
        >>> sorted(Permute().sample(w, generator=gen).perm)
        ['h1', 'h2']

    Reference:
        Shamsian et al., *Improved Generalization of Weight Space Networks via Augmentations*, 2024.
    """

    preserves = "function"
    requires = (HIDDEN,)

    def sample(self, weights: Weights, *, generator: torch.Generator) -> Symmetry:
        return _sample(self, weights, generator, "perm")

    def apply(self, weights: Weights, draw: Symmetry) -> Weights:
        return draw.act(weights)


@dataclass(frozen=True)
class SignFlip(Transform):
    r"""Negate each hidden neuron with probability ``p``: sine and tanh are odd, :math:`a(-z) = -a(z)`.

    The incoming weights and the bias are negated and, for odd activations, so are the outgoing weights.

    Args:
        p: probability for each neuron.

    Raises:
        ValueError: for a probability out of [0, 1]; when sampled, for activations that do not commute with signs.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import SignFlip
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.Weights(torch.randn(4, 1185, generator=gen), ws.siren(2, 32, 32, 1))
        >>> SignFlip(p=1.0).sample(w, generator=gen).scale["h1"].unique()
        tensor([-1.])

    Reference:
        Shamsian et al., *Improved Generalization of Weight Space Networks via Augmentations*, 2024.
    """

    p: float = 0.5
    preserves = "function"
    requires = (HIDDEN, SIGNS)

    def __post_init__(self) -> None:
        probability("SignFlip", self.p, "a probability p")

    def sample(self, weights: Weights, *, generator: torch.Generator) -> Symmetry:
        check_input(weights, generator)
        self.check(weights.spec)
        axes = weights.spec.hidden
        u = rand((len(weights), sum(axis.size for axis in axes)), generator=generator, dtype=torch.float32)
        signs = torch.where(u < self.p, -1.0, 1.0).to(weights.flat)
        parts = signs.split([axis.size for axis in axes], 1)
        return Symmetry(
            weights.spec, len(weights), scale={axis.name: part for axis, part in zip(axes, parts, strict=True)}
        )

    def apply(self, weights: Weights, draw: Symmetry) -> Weights:
        return draw.act(weights)


@dataclass(frozen=True)
class PhaseShift(Transform):
    r"""Shift each hidden neuron's phase by ``k`` half periods, ``k`` uniform in [-max_shift, max_shift].

    :math:`\sin(z + k \pi) = (-1)^k \sin(z)`: :math:`k \pi / \omega` is added to the bias, and the outgoing weights are
    multiplied by :math:`(-1)^k`. The shift is bounded because the group is not compact: with large ``k`` the biases
    leave the range of every trained network, and a model that reads them cannot generalise.

    Args:
        max_shift: bound of ``k``.

    Raises:
        TypeError: for a bound that is not a whole number.
        ValueError: for a bound below one; when sampled, for activations without a period or neurons without a bias.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import PhaseShift
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.Weights(torch.randn(4, 1185, generator=gen), ws.siren(2, 32, 32, 1))
        >>> PhaseShift(1).sample(w, generator=gen).shift["h1"].unique()
        tensor([-1.,  0.,  1.])

    Reference:
        Shamsian et al., *Improved Generalization of Weight Space Networks via Augmentations*, 2024.
    """

    max_shift: int = 1
    preserves = "function"
    requires = (HIDDEN, PERIODIC, HIDDEN_BIAS)

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_shift", whole_number("PhaseShift, max_shift", self.max_shift))

    def sample(self, weights: Weights, *, generator: torch.Generator) -> Symmetry:
        return _sample(self, weights, generator, "shift", max_shift=self.max_shift)

    def apply(self, weights: Weights, draw: Symmetry) -> Weights:
        return draw.act(weights)


@dataclass(frozen=True)
class PositiveScale(Transform):
    r"""Scale each hidden neuron by a factor log-uniform in [1/max_scale, max_scale]: :math:`relu(s z) = s\,relu(z)`.

    Args:
        max_scale: bound of the factor.

    Raises:
        ValueError: for a bound below one; when sampled, for activations that do not commute with positive factors.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import PositiveScale
        >>> gen = torch.Generator().manual_seed(0)
        >>> spec = ws.mlp(2, 32, 32, 1, activation="relu")
        >>> w = ws.Weights(torch.randn(4, spec.num_params, generator=gen), spec)
        >>> bool((PositiveScale(2.0).sample(w, generator=gen).scale["h1"] > 0).all())
        True

    Reference:
        Neyshabur et al., *Path-SGD: Path-Normalized Optimization in Deep Neural Networks*, 2015.
    """

    max_scale: float = 2.0
    preserves = "function"
    requires = (HIDDEN, POSITIVE_SCALES)

    def __post_init__(self) -> None:
        number("PositiveScale", self.max_scale, "max_scale >= 1", low=1)

    def sample(self, weights: Weights, *, generator: torch.Generator) -> Symmetry:
        return _sample(self, weights, generator, "scale", max_scale=self.max_scale)

    def apply(self, weights: Weights, draw: Symmetry) -> Weights:
        return draw.act(weights)


@dataclass(frozen=True)
class LinearMix(Transform):
    r"""Multiply each linear axis by a random matrix: :math:`B M^{-1} M A = B A`.

    Linear axes lie between two linear maps with nothing in between: the head dimension between queries and keys, and
    between values and output, each head with a matrix of its own, or the rank of a low-rank adapter. The matrices are
    :math:`U S V^T` with uniform rotations and singular values log-uniform in [1/max_scale, max_scale].

    Args:
        max_scale: bound of the singular values; with 1 the matrices are orthogonal.

    Raises:
        ValueError: for a bound below one; when sampled, for networks without a linear axis.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import LinearMix
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.testing.random_weights(ws.mlp(2, 8, 3, 1, activation=("relu", "linear")), 4, generator=gen)
        >>> LinearMix().sample(w, generator=gen).linear["h2"].shape
        torch.Size([4, 1, 3, 3])

    Reference:
        Zhang et al., *Beyond the Permutation Symmetry of Transformers: The Role of Rotation for Model Fusion*, 2025,
        section 3 (rotations); Putterman et al., *Learning on LoRAs*, 2024, section 3 (adapters).
    """

    max_scale: float = 2.0
    preserves = "function"
    requires = (LINEAR_AXIS,)

    def __post_init__(self) -> None:
        number("LinearMix", self.max_scale, "max_scale >= 1", low=1)

    def sample(self, weights: Weights, *, generator: torch.Generator) -> Symmetry:
        return _sample(self, weights, generator, "linear", max_scale=self.max_scale)

    def apply(self, weights: Weights, draw: Symmetry) -> Weights:
        return draw.act(weights)


def _sample(
    transform: Transform,
    weights: Weights,
    generator: torch.Generator,
    part: Part,
    *,
    max_scale: float = 2.0,
    max_shift: int = 1,
) -> Symmetry:
    check_input(weights, generator)
    transform.check(weights.spec)
    element = Symmetry.sample(
        weights.spec,
        batch=len(weights),
        generator=generator,
        parts=(part,),
        max_scale=max_scale,
        max_shift=max_shift,
        dtype=weights.dtype,
    )
    return element.to(weights.device)


NAMED: dict[str, Transform] = {
    "permute": Permute(),
    "sign": SignFlip(0.5),
    "phase": PhaseShift(1),
    "positive-scale": PositiveScale(2.0),
    "linear-mix": LinearMix(2.0),
}
"""Entries of the registry, each with the strength that its name stands for."""
