"""Triangle meshes, and their signed or unsigned distance at sampled points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from weightspace._checks import check_generator, number, whole_number
from weightspace._extras import optional
from weightspace._random import rand, randn
from weightspace.signals._arrays import as_array

SHARES = (0.25, 0.5, 0.25)
STD = 0.05
SIZE = 0.9


@dataclass(frozen=True, eq=False, repr=False)
class Mesh:
    """A triangle mesh.

    Args:
        vertices: ``[vertex, 3]``, stored as float64.
        faces: ``[face, 3]``, indices of vertices, counter-clockwise seen from outside, stored as int64.
        name: the name in error messages.

    Raises:
        TypeError: for vertices that are not numbers, or faces that are not integers.
        ValueError: for other shapes, no faces, a surface without area, indices out of range, or NaN.

    Example:
        >>> import weightspace as ws
        >>> corner = ws.datasets.Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
        >>> corner.area
        0.5
    """

    vertices: Any
    faces: Any
    name: str = "mesh"

    def __post_init__(self) -> None:
        vertices = as_array(self.vertices, f"{self.name}: vertices")
        faces = as_array(self.faces, f"{self.name}: faces")
        if vertices.dtype.kind not in "iuf":
            raise TypeError(f"{self.name}: vertices: expected numbers, got {vertices.dtype}")
        if vertices.ndim != 2 or vertices.shape[1] != 3:
            raise ValueError(f"{self.name}: vertices: expected [vertex, 3], got {list(vertices.shape)}")
        if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
            raise ValueError(f"{self.name}: faces: expected at least one, [face, 3], got {list(faces.shape)}")
        if faces.dtype.kind not in "iu":
            raise TypeError(f"{self.name}: faces: expected integers, got {faces.dtype}")
        if faces.min() < 0 or faces.max() >= len(vertices):
            raise ValueError(
                f"{self.name}: faces: expected numbers of vertices in [0, {len(vertices)}), "
                f"got {faces.min()} to {faces.max()}"
            )
        if not np.isfinite(vertices).all():
            raise ValueError(f"{self.name}: vertices: expected finite coordinates, got NaN or infinity")
        object.__setattr__(self, "vertices", np.ascontiguousarray(vertices, dtype=np.float64))
        object.__setattr__(self, "faces", np.ascontiguousarray(faces, dtype=np.int64))
        if not 0 < self.area < np.inf:
            raise ValueError(f"{self.name}: expected a surface with an area, got {self.area}")

    def __repr__(self) -> str:
        return f"Mesh({self.name!r}, {len(self.vertices)} vertices, {len(self.faces)} faces)"

    @property
    def used(self) -> np.ndarray:
        """The vertices that a face uses, float64 ``[vertex, 3]``."""
        seen = np.zeros(len(self.vertices), dtype=bool)
        seen[self.faces] = True
        return self.vertices[seen]

    @property
    def areas(self) -> np.ndarray:
        """Area of every face, float64 ``[face]``."""
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2

    @property
    def area(self) -> float:
        """Area of the surface."""
        return float(self.areas.sum())

    def normalized(self, to: Literal["box", "sphere"] = "box", size: float = SIZE) -> Mesh:
        r"""Move the mesh to the middle of [-1, 1]³ and scale it, by one factor for all axes.

        .. math:: v' = size \cdot (v - c) / r

        Here c is the middle of the bounding box, and r is half its longest side (``"box"``) or the distance of the
        farthest vertex from c (``"sphere"``). Vertices that no face uses do not count.

        Args:
            to: ``"box"`` or ``"sphere"``.
            size: half the longest side, or the radius, afterwards; below 1 it leaves room outside the surface.

        Raises:
            ValueError: for another ``to``, or a size of 0 or less.

        Example:
            >>> import weightspace as ws
            >>> mesh = ws.datasets.Mesh([[0, 0, 0], [4, 0, 0], [0, 2, 0]], [[0, 1, 2]]).normalized(size=1)
            >>> mesh.vertices.tolist()
            [[-1.0, -0.5, 0.0], [1.0, -0.5, 0.0], [-1.0, 0.5, 0.0]]
        """
        check_shape(to)
        number("size", size, "a positive number", low=np.finfo(float).tiny)
        used = self.used
        low, high = used.min(0), used.max(0)
        centre = (low + high) / 2
        radius = (high - low).max() / 2 if to == "box" else np.linalg.norm(used - centre, axis=1).max()
        return Mesh((self.vertices - centre) * (size / radius), self.faces, self.name)

    def distance(self, points: Any, *, signed: bool = True) -> Tensor:
        r"""Compute the distance of points from the surface; if it is signed, it is negative inside.

        .. math:: d(x) = s(x) \min_{y \in \text{surface}} \lVert x - y \rVert

        The distance is exact (to the nearest triangle). The sign is -1 where the winding number exceeds 1/2, within the
        bounding box. So it is defined for surfaces with holes too, if less meaningful; use ``signed=False`` for
        surfaces that enclose nothing.

        Args:
            points: ``[point, 3]``.
            signed: whether the inside is negative.

        Returns:
            ``[point]``, float32, on the CPU; computed in float64.

        Raises:
            ImportError: if libigl is not installed (extra ``mesh``).
            ValueError: for points of another shape.

        Example:
            >>> import weightspace as ws
            >>> tetrahedron = ws.datasets.Mesh(
            ...     [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]
            ... )
            >>> tetrahedron.distance([[0.1, 0.2, 0.2], [0, 0, -2]]).tolist()
            [-0.1..., 2.0]

        Reference:
            Barill et al., *Fast winding numbers for soups and clouds*, 2018 (the sign).
        """
        igl = optional("igl", "libigl", "mesh", "the distance of a mesh")
        where = np.ascontiguousarray(as_array(points, "points"), dtype=np.float64)
        if where.ndim != 2 or where.shape[1] != 3:
            raise ValueError(f"points: expected [point, 3], got {list(where.shape)}")
        squared, _, _ = igl.point_mesh_squared_distance(where, self.vertices, self.faces)
        distance = np.sqrt(np.asarray(squared).reshape(len(where)))
        if signed:
            used = self.used
            near = ((where >= used.min(0)) & (where <= used.max(0))).all(1).nonzero()[0]
            if len(near):  # it is the slower of the two
                winding = np.asarray(igl.fast_winding_number(self.vertices, self.faces, where[near])).reshape(len(near))
                distance[near[winding > 0.5]] *= -1
        return torch.from_numpy(distance.astype(np.float32))

    def sample(
        self,
        points: int,
        *,
        shares: Sequence[float] = SHARES,
        std: float = STD,
        generator: torch.Generator,
    ) -> Tensor:
        """Sample points on the surface, near it, and anywhere in [-1, 1]³, in this order.

        Points on the surface are uniform over its area. Points near it are such points plus normal noise.

        Args:
            points: the number of points in all.
            shares: shares of the points on the surface, near it, and uniform in the cube; they add up to 1.
            std: standard deviation of the noise, on each axis.
            generator: the source of randomness.

        Returns:
            ``[points, 3]``, float32, on the CPU.

        Raises:
            TypeError: without a generator.
            ValueError: for shares that do not add up to 1, or numbers out of range.

        Example:
            >>> import torch
            >>> import weightspace as ws
            >>> flat = ws.datasets.Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
            >>> flat.sample(100, shares=(1, 0, 0), generator=torch.Generator().manual_seed(0))[:, 2].unique()
            tensor([0.])
        """
        on, near, free = share_out(whole_number("points", points), shares)
        number("std", std, "a number of at least 0", low=0)
        check_generator(generator)
        surface = self._on_surface(on + near, generator)
        noise = randn((near, 3), generator=generator, dtype=torch.float64).cpu()
        surface[on:] += std * noise
        anywhere = 2 * rand((free, 3), generator=generator, dtype=torch.float64).cpu() - 1
        return torch.cat([surface, anywhere]).float()

    def _on_surface(self, count: int, generator: torch.Generator) -> Tensor:
        """Sample points uniform over the area, ``[count, 3]``, float64: a face by its area, then a point in it."""
        total = torch.from_numpy(np.cumsum(self.areas))
        u = rand((3, count), generator=generator, dtype=torch.float64).cpu()
        face = torch.searchsorted(total, u[0] * total[-1], right=True).clamp_(max=len(total) - 1)
        corners = torch.from_numpy(self.vertices[self.faces[face.numpy()]])
        root = u[1].sqrt()
        weights = torch.stack([1 - root, root * (1 - u[2]), root * u[2]], dim=1)
        return (weights[:, :, None] * corners).sum(1)


def check_shape(to: str) -> None:
    """Raise ``ValueError`` for anything but the shapes that a mesh can be scaled to fit."""
    if to not in ("box", "sphere"):
        raise ValueError(f"to: expected 'box' or 'sphere', got {to!r}")


def share_out(points: int, shares: Sequence[float]) -> list[int]:
    """Divide ``points`` by ``shares`` into whole numbers that add up, each within one of its share.

    Raises:
        ValueError: for other than three shares of at least 0 that add up to 1.
    """
    given = [number("shares", share, "shares of at least 0", low=0) for share in shares]
    if len(given) != 3 or abs(sum(given) - 1) > 1e-6:
        raise ValueError(f"shares: expected three (surface, near, uniform) that add up to 1, got {tuple(shares)}")
    ends = np.rint(np.cumsum([0.0, *given]) * points).astype(int)
    return np.diff(ends).tolist()


def meshes(
    surfaces: Sequence[Mesh],
    *,
    points: int = 4096,
    signed: bool = True,
    shares: Sequence[float] = SHARES,
    std: float = STD,
    to: Literal["box", "sphere"] | None = "box",
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Convert meshes to points of their own and the distances there.

    Args:
        surfaces: the meshes.
        points: points of each mesh.
        signed: whether distances inside are negative; see :meth:`Mesh.distance`.
        shares: shares of the points on the surface, near it, and uniform in [-1, 1]³; see :meth:`Mesh.sample`.
        std: standard deviation of the points near the surface.
        to: every mesh is scaled to fit a ``"box"`` of half side 0.9 or a ``"sphere"`` of radius 0.9, see
            :meth:`Mesh.normalized`; None leaves the meshes unchanged.
        generator: the source of randomness.

    Returns:
        ``(coords, targets)``: ``coords [mesh, point, 3]`` and ``targets [mesh, point, 1]``, float32, on the CPU.

    Raises:
        ImportError: if libigl is not installed (extra ``mesh``).
        TypeError: for anything but meshes, or without a generator.
        ValueError: for no meshes, or options out of range.

    Example:
        >>> import torch
        >>> import weightspace as ws
        >>> tetrahedron = ws.datasets.Mesh(
        ...     [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]
        ... )
        >>> coords, targets = ws.datasets.meshes([tetrahedron], points=64, generator=torch.Generator().manual_seed(0))
        >>> coords.shape, targets.shape
        (torch.Size([1, 64, 3]), torch.Size([1, 64, 1]))
    """
    if not len(surfaces):
        raise ValueError("meshes: expected at least one mesh, got none")
    coords, targets = [], []
    for i, mesh in enumerate(surfaces):
        if not isinstance(mesh, Mesh):
            raise TypeError(
                f"meshes: expected Mesh, got {type(mesh).__name__} at {i}; read one with datasets.read_mesh"
            )
        scaled = mesh if to is None else mesh.normalized(to)
        x = scaled.sample(points, shares=shares, std=std, generator=generator)
        coords.append(x)
        targets.append(scaled.distance(x, signed=signed)[:, None])
    return torch.stack(coords), torch.stack(targets)
