"""Transforms of the input coordinates, exact in the parameters that read them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weightspace._checks import number, probability, whole_number
from weightspace._random import rand, randn
from weightspace._weights import Weights
from weightspace.transforms._affine import AffineDraw, Coordinates
from weightspace.transforms._base import Transform
from weightspace.transforms.compose import Compose
from weightspace.transforms.requirements import INPUT_BIAS, LINEAR_INPUT, input_count


@dataclass(frozen=True, repr=False)
class Rotate(Coordinates):
    r"""Rotate the coordinates about the origin.

    In the plane by an angle uniform in [-degrees, degrees]; in space by such an angle about a uniform random axis
    :math:`n`, :math:`A = I + \sin\theta\, N + (1 - \cos\theta) N^2` with :math:`N v = n \times v`.

    A picture of other than equal sides lies on the square [-1, 1]² all the same, so that a rotation of the coordinates
    would shear it. Given its size, distances in pixels stay: :math:`S^{-1} A S` with
    :math:`S = \mathrm{diag}(n_1 - 1, n_2 - 1)`. :func:`weightspace.train` gives an augmentation that is named by a
    text the size that the zoo records.

    Args:
        degrees: bound of the angle.
        size: points along each coordinate, such as height and width in pixels; by default all are the same.

    Raises:
        ValueError: for a negative bound or an impossible size; when sampled, for networks of other than 2 or 3
            coordinates, or of another number than ``size`` has.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Rotate
        >>> w = ws.Weights(torch.ones(4, 1185), ws.siren(2, 32, 32, 1))
        >>> draw = Rotate(30.0).sample(w, generator=torch.Generator().manual_seed(0))
        >>> draw.matrix.shape
        torch.Size([4, 2, 2])

    Reference:
        Shamsian et al., *Improved Generalization of Weight Space Networks via Augmentations*, 2024.
    """

    degrees: float = 30.0
    size: Sequence[int] | None = None
    requires = (LINEAR_INPUT, input_count(2, 3, "rotation acts on the plane or on space; use Scale, Flip or Translate"))

    def __post_init__(self) -> None:
        number("Rotate", self.degrees, "degrees >= 0", low=0)
        if self.size is None:
            return
        if not isinstance(self.size, Sequence) or isinstance(self.size, str):
            raise TypeError(f"Rotate: expected whole numbers of points as size, got {self.size!r}; e.g. (16, 48)")
        size = tuple(whole_number("Rotate, size", side) for side in self.size)
        count = input_count(len(size), len(size), f"size={size} has one number for each coordinate")
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "requires", (*type(self).requires, count))

    def __repr__(self) -> str:
        """Print a size that is given; a run is recognised by the text of its transforms."""
        size = "" if self.size is None else f", size={self.size}"
        return f"Rotate(degrees={self.degrees}{size})"

    def affine(self, weights: Weights, *, generator: torch.Generator) -> AffineDraw:
        turn = self._turn(weights, generator)
        if self.size is None:
            return AffineDraw(turn)
        steps = torch.tensor([max(side - 1, 1) for side in self.size], dtype=turn.dtype, device=turn.device)
        return AffineDraw(turn * (steps / steps[:, None]))

    def _turn(self, weights: Weights, generator: torch.Generator) -> Tensor:
        """Draw a rotation for each network, ``[batch, coord, coord]``."""
        angle = math.radians(self.degrees) * _uniform((len(weights), 1, 1), weights, generator)
        if weights.spec.in_features == 2:
            return torch.cat([torch.cat([angle.cos(), -angle.sin()], 2), torch.cat([angle.sin(), angle.cos()], 2)], 1)
        axis = randn((len(weights), 3), generator=generator, dtype=weights.dtype, device=weights.device)
        axis = torch.nn.functional.normalize(axis, dim=1)
        eye = torch.eye(3, dtype=weights.dtype, device=weights.device)
        cross = torch.linalg.cross(axis[:, None], eye.expand(len(weights), 3, 3)).mT
        return eye + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


@dataclass(frozen=True)
class Translate(Coordinates):
    r"""Shift the coordinates, each by a distance uniform in [-max_shift, max_shift].

    Only the bias behind the input changes, :math:`b' = b + W t`.

    Args:
        max_shift: bound, in the units of the coordinates (an image spans [-1, 1]).

    Raises:
        ValueError: for a negative bound; when sampled, for networks without bias behind the input.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Translate
        >>> w = ws.Weights(torch.ones(4, 1185), ws.siren(2, 32, 32, 1))
        >>> moved = Translate(0.25)(w, generator=torch.Generator().manual_seed(0))
        >>> [name for name, value in moved.items() if not value.equal(w.view(name))]
        ['0.bias']

    Reference:
        Shamsian et al., *Improved Generalization of Weight Space Networks via Augmentations*, 2024.
    """

    max_shift: float = 0.25
    requires = (LINEAR_INPUT, INPUT_BIAS)

    def __post_init__(self) -> None:
        number("Translate", self.max_shift, "max_shift >= 0", low=0)

    def affine(self, weights: Weights, *, generator: torch.Generator) -> AffineDraw:
        shift = self.max_shift * _uniform((len(weights), weights.spec.in_features), weights, generator)
        return AffineDraw(_eye(weights), shift)


@dataclass(frozen=True)
class Scale(Coordinates):
    r"""Scale the coordinates by factors log-uniform in [low, high]; a factor above one shrinks the signal.

    Args:
        low: smallest factor, positive.
        high: largest factor.
        isotropic: whether all coordinates share one factor.

    Raises:
        ValueError: unless 0 < low <= high.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Scale
        >>> w = ws.Weights(torch.ones(4, 1185), ws.siren(2, 32, 32, 1))
        >>> len(Scale(0.8, 1.25)(w, generator=torch.Generator().manual_seed(0)))
        4

    Reference:
        Shamsian et al., *Improved Generalization of Weight Space Networks via Augmentations*, 2024.
    """

    low: float = 0.8
    high: float = 1.25
    isotropic: bool = True

    def __post_init__(self) -> None:
        low = number("Scale", self.low, "low > 0", above=0)
        if number("Scale", self.high, "a finite high") < low:
            raise ValueError(f"Scale: expected 0 < low <= high, got low={self.low} and high={self.high}")

    def affine(self, weights: Weights, *, generator: torch.Generator) -> AffineDraw:
        dims = weights.spec.in_features
        u = (1 + _uniform((len(weights), 1 if self.isotropic else dims), weights, generator)) / 2
        factor = (math.log(self.low) + math.log(self.high / self.low) * u).exp()
        return AffineDraw(torch.diag_embed(factor.expand(-1, dims)))


@dataclass(frozen=True)
class Shear(Coordinates):
    r"""Shear one coordinate along another: :math:`\phi(x)_i = x_i + a x_j` for a random ordered pair (i, j).

    Args:
        max_shear: bound of ``a``, which is uniform.

    Raises:
        ValueError: for a negative bound; when sampled, for networks of one coordinate.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Shear
        >>> w = ws.Weights(torch.ones(4, 1185), ws.siren(2, 32, 32, 1))
        >>> draw = Shear(0.2).sample(w, generator=torch.Generator().manual_seed(0))
        >>> bool((torch.linalg.det(draw.matrix) == 1).all())
        True
    """

    max_shear: float = 0.2
    requires = (LINEAR_INPUT, input_count(2, None, "a shear needs a second coordinate; use Scale, Flip or Translate"))

    def __post_init__(self) -> None:
        number("Shear", self.max_shear, "max_shear >= 0", low=0)

    def affine(self, weights: Weights, *, generator: torch.Generator) -> AffineDraw:
        pairs = list(itertools.permutations(range(weights.spec.in_features), 2))
        ones = torch.zeros(len(pairs), *_eye(weights).shape[1:], dtype=weights.dtype, device=weights.device)
        for place, (i, j) in enumerate(pairs):
            ones[place, i, j] = 1
        u = rand((len(weights),), generator=generator, dtype=torch.float64, device=weights.device)
        amount = self.max_shear * _uniform((len(weights), 1, 1), weights, generator)
        return AffineDraw(_eye(weights) + amount * ones[(u * len(pairs)).long()])


@dataclass(frozen=True)
class Flip(Coordinates):
    """Mirror each coordinate with probability ``p``, independently of the others.

    Args:
        p: probability.
        axes: the coordinates that may be mirrored; by default all. For images in [-1, 1] with coordinates
            (row, column) a horizontal flip is ``axes=(1,)``.

    Raises:
        TypeError: for a probability that is not a number, or axes that are not a sequence of whole numbers.
        ValueError: for a probability out of [0, 1] or impossible axes; when sampled, for networks with fewer
            coordinates than ``axes`` names.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Flip
        >>> w = ws.Weights(torch.ones(4, 1185), ws.siren(2, 32, 32, 1))
        >>> Flip(p=1.0, axes=(0,))(w, generator=torch.Generator()).view("0.weight")[0, 0]
        tensor([-1.,  1.])
    """

    p: float = 0.5
    axes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        probability("Flip", self.p, "a probability p")
        if self.axes is None:
            return
        if not isinstance(self.axes, Sequence):
            raise TypeError(f"Flip: expected a sequence of coordinate numbers as axes, got {self.axes!r}; e.g. (1,)")
        axes = tuple(whole_number("Flip, axes", axis, None) for axis in self.axes)
        if not axes or len(set(axes)) < len(axes) or min(axes) < 0:
            raise ValueError(f"Flip: expected distinct coordinate numbers >= 0 as axes, got {axes}")
        object.__setattr__(self, "axes", axes)
        object.__setattr__(
            self, "requires", (LINEAR_INPUT, input_count(max(axes) + 1, None, f"axes={axes} names one too many"))
        )

    def affine(self, weights: Weights, *, generator: torch.Generator) -> AffineDraw:
        dims = weights.spec.in_features
        u = rand((len(weights), dims), generator=generator, dtype=weights.dtype, device=weights.device)
        allowed = torch.tensor([self.axes is None or i in self.axes for i in range(dims)], device=weights.device)
        return AffineDraw(torch.diag_embed(torch.where((u < self.p) & allowed, -1.0, 1.0).to(weights.dtype)))


@dataclass(frozen=True, eq=False)
class Affine(Coordinates):
    r"""Apply a given map of the coordinates, the same for every network: :math:`\phi(x) = A x + t`.

    Args:
        matrix: ``A``, ``[coord, coord]``.
        offset: ``t``, ``[coord]``, or ``None`` for zero.

    Raises:
        TypeError: for something other than an array of numbers.
        ValueError: unless the shapes fit each other and the numbers are finite; when sampled, unless they
            fit the networks.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Affine
        >>> w = ws.Weights(torch.ones(1, 1185), ws.siren(2, 32, 32, 1))
        >>> Affine([[0, -1], [1, 0]])(w, generator=torch.Generator()).view("0.weight")[0, 0]
        tensor([ 1., -1.])
    """

    matrix: Tensor | Sequence[Sequence[float]]
    offset: Tensor | Sequence[float] | None = None

    def __post_init__(self) -> None:
        matrix = _numbers("matrix", self.matrix)
        offset = None if self.offset is None else _numbers("offset", self.offset)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"Affine: expected a square matrix, got shape {list(matrix.shape)}")
        if offset is not None and offset.shape != matrix.shape[:1]:
            raise ValueError(f"Affine: expected an offset of shape {[len(matrix)]}, got {list(offset.shape)}")
        dims = input_count(len(matrix), len(matrix), "the matrix must have one row for each coordinate")
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "offset", offset)
        object.__setattr__(
            self, "requires", (LINEAR_INPUT, dims) if offset is None else (LINEAR_INPUT, dims, INPUT_BIAS)
        )

    def __repr__(self) -> str:
        """Print every digit, where a tensor would print four: a run is recognised by the text of its transforms."""
        offset = None if self.offset is None else torch.as_tensor(self.offset).tolist()
        return f"Affine(matrix={torch.as_tensor(self.matrix).tolist()}, offset={offset})"

    def affine(self, weights: Weights, *, generator: torch.Generator) -> AffineDraw:
        matrix = torch.as_tensor(self.matrix).to(weights.flat).expand(len(weights), -1, -1)
        if self.offset is None:
            return AffineDraw(matrix)
        return AffineDraw(matrix, torch.as_tensor(self.offset).to(weights.flat).expand(len(weights), -1))


def _numbers(name: str, value: Tensor | Sequence) -> Tensor:
    try:
        found = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"Affine: expected numbers as {name}, got {value!r}; pass a tensor or nested lists") from error
    if not bool(found.isfinite().all()):
        raise ValueError(f"Affine: expected finite numbers as {name}, got {found.tolist()}")
    return found


def _uniform(shape: tuple[int, ...], weights: Weights, generator: torch.Generator) -> Tensor:
    """Draw numbers uniform in [-1, 1)."""
    return 2 * rand(shape, generator=generator, dtype=weights.dtype, device=weights.device) - 1


def _eye(weights: Weights) -> Tensor:
    dims = weights.spec.in_features
    return torch.eye(dims, dtype=weights.dtype, device=weights.device).expand(len(weights), dims, dims)


NAMED: dict[str, Transform] = {
    "rotate": Rotate(15.0),
    "translate": Translate(0.15),
    "scale": Scale(0.85, 1.15),
    "shear": Shear(0.15),
    "flip": Flip(0.5, axes=(1,)),  # left to right, because the second coordinate runs along an image's rows
    "small-affine": Compose([Rotate(4.0), Translate(0.05), Scale(0.95, 1.05)]),
}
"""Entries of the registry, each with the strength that its name stands for."""
