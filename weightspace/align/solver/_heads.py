"""Heads and linear axes: blocks that are assigned to one another, with the best matrix inside of each.

All is computed from inner products in the small dimension, ``[block, block, n, n]`` for heads of size ``n``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from weightspace._spec import Axis, NetSpec
from weightspace._symmetry import Group, Symmetry
from weightspace._weights import Weights
from weightspace.align.solver._assignment import assign


@dataclass(frozen=True)
class HeadProblem:
    """Axes whose blocks move together: the queries and keys, and the values, of the same heads.

    Args:
        axes: the axes, first the one that the others follow.
        params: for each axis the parameters on it: name, place of the axis in ``[batch, *shape]``, and whether a matrix
            acts by its inverse transpose.
        mixes: for each axis whether matrices are searched.
    """

    axes: tuple[Axis, ...]
    params: tuple[tuple[tuple[str, int, bool], ...], ...]
    mixes: tuple[bool, ...]


def head_problems(spec: NetSpec, group: Group) -> tuple[HeadProblem, ...]:
    """Return the problems of all axes whose neurons do not move one by one under a group."""
    found = []
    for leader in spec.hidden:
        mixes = group == "full" and leader.symmetry.linear
        if leader.follows is not None or not (mixes or leader.blocks > 1):
            continue
        axes = (leader, *(axis for axis in spec.blocked if axis.follows == leader.name))
        params = tuple(
            tuple(
                (p.name, 1, p.dual) if p.produces == axis.name else (p.name, 2, True)
                for p in spec.params
                if axis.name in p.axes
            )
            for axis in axes
        )
        found.append(HeadProblem(axes, params, tuple(group == "full" and axis.symmetry.linear for axis in axes)))
    return tuple(found)


class Sides(NamedTuple):
    """The numbers of each block on both sides, ``[batch, block, n, feature]`` in float64: those that a matrix
    multiplies, and those that its inverse transpose does."""

    own: Tensor
    dual: Tensor


def sides(weights: Weights, axis: Axis, params: tuple[tuple[str, int, bool], ...]) -> Sides:
    """Return the features of the blocks of one axis."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    shape = (len(weights), axis.blocks, axis.block_size)
    for name, place, dual in params:
        value = weights.view(name).detach().movedim(place, 1)
        parts[dual].append(value.reshape(*shape, value[0].numel() // axis.size if len(value) else 1).double())
    none = weights.flat.new_zeros(*shape, 0, dtype=torch.float64)
    return Sides(*(torch.cat(part, 3) if part else none for part in parts))


def solve_heads(a: Weights, b: Weights, problem: HeadProblem) -> Symmetry:
    r"""Find blocks and matrices on one group of axes that bring each network of ``b`` closer, all else held.

    Between block ``i`` of ``a`` and block ``j`` of ``b``, with rows ``P`` that a matrix ``M`` multiplies and ``Q`` that
    its inverse transpose does, the orthogonal matrix closest is that of Procrustes,

    .. math:: C_{ij} = P^a_i (P^b_j)^T + Q^a_i (Q^b_j)^T = U S V^T, \qquad M = U V^T

    and the squared distance falls by twice the sum of ``S``. The other candidate moves both blocks to their balanced
    form (:func:`balance`), and the orthogonal matrix lies between: it finds every invertible matrix. The closer one
    counts, blocks are assigned by the sums over the axes of a group, and a network that does not come closer stays.

    Args:
        a: the targets, as many as in ``b`` or one for all.
        b: the networks to move.
        problem: the axes.
    """
    batch, blocks = len(b), problem.axes[0].blocks
    costs = torch.zeros(batch, blocks, blocks, dtype=torch.float64, device=b.device)
    now = torch.zeros(batch, dtype=torch.float64, device=b.device)
    found = []
    for axis, params, mixes in zip(problem.axes, problem.params, problem.mixes, strict=True):
        grams = _Grams(sides(a, axis, params), sides(b, axis, params))
        own = grams.matrices() if mixes else grams.permutations() if axis.symmetry.linear else grams.as_they_are()
        costs += own[0]
        now += grams.cost(_eye(grams.cross_own)).diagonal(dim1=1, dim2=2).sum(1)
        found.append(own[1])
    order = assign(-costs)
    reached = costs.gather(2, order[:, :, None])[:, :, 0].sum(1)
    scale = sum((b.view(name).double().flatten(1).square().sum(1) for p in problem.params for name, _, _ in p), now * 0)
    gains = now - reached > 64 * torch.finfo(b.dtype).eps * (now + scale)
    row = torch.arange(batch, device=b.device)[:, None]
    column = torch.arange(blocks, device=b.device)[None]
    perm, linear = {}, {}
    for axis, matrices, mixes in zip(problem.axes, found, problem.mixes, strict=True):
        chosen = matrices[row, column, order]
        inside = torch.arange(axis.block_size, device=b.device).expand(batch, blocks, -1)
        if mixes:
            linear[axis.name] = torch.where(gains[:, None, None, None], chosen, _eye(chosen)).to(b.dtype)
        elif axis.symmetry.linear:
            inside = chosen.argmax(3)
        moved = (order[:, :, None] * axis.block_size + inside).flatten(1)
        perm[axis.name] = torch.where(gains[:, None], moved, torch.arange(axis.size, device=b.device))
    return Symmetry(b.spec, batch, perm, linear=linear, check=False)


class _Grams:
    """The inner products of all pairs of blocks, ``[batch, block of a, block of b, n, n]``."""

    def __init__(self, a: Sides, b: Sides) -> None:
        self.a, self.b = a, b
        self.cross_own, self.cross_dual = (x[:, :, None] @ y[:, None].mT for x, y in zip(a, b, strict=True))
        self.square_a = sum(x.square().sum((2, 3)) for x in a)
        self.own_b, self.dual_b = (x @ x.mT for x in b)

    def cost(self, matrix: Tensor, inverse: Tensor | None = None) -> Tensor:
        """Return the squared distance of each pair of blocks after its matrix, ``[batch, block, block]``."""
        back = (matrix if inverse is None else inverse.mT).expand_as(self.cross_own)
        matrix = matrix.expand_as(self.cross_own)
        inner = (matrix * self.cross_own).sum((3, 4)) + (back * self.cross_dual).sum((3, 4))
        moved = ((matrix @ self.own_b[:, None]) * matrix).sum((3, 4)) + ((back @ self.dual_b[:, None]) * back).sum(
            (3, 4)
        )
        return self.square_a[:, :, None] - 2 * inner + moved  # type: ignore[index]

    def as_they_are(self) -> tuple[Tensor, Tensor]:
        eye = _eye(self.cross_own).expand_as(self.cross_own)
        return self.cost(eye), eye

    def permutations(self) -> tuple[Tensor, Tensor]:
        both = self.cross_own + self.cross_dual
        matrix = torch.nn.functional.one_hot(assign(both.flatten(0, 2)), both.shape[-1]).to(both).view(both.shape)
        return self.cost(matrix), matrix

    def matrices(self) -> tuple[Tensor, Tensor]:
        turn = procrustes(self.cross_own + self.cross_dual)
        cost = self.cost(turn)
        left, right = balance(self.a), balance(self.b)
        back, forth = torch.linalg.inv(left), torch.linalg.inv(right)
        own = left[:, :, None] @ self.cross_own @ right[:, None].mT
        dual = back.mT[:, :, None] @ self.cross_dual @ forth[:, None]
        between = procrustes(own + dual)
        matrix = back[:, :, None] @ between @ right[:, None]
        other = self.cost(matrix, forth[:, None] @ between.mT @ left[:, :, None])
        better = other < cost
        return torch.where(better, other, cost), torch.where(better[..., None, None], matrix, turn)


def procrustes(cross: Tensor) -> Tensor:
    r"""Return the orthogonal matrices that maximise ``tr(M^T cross)``, ``[..., n, n]``.

    Reference:
        Schönemann, *A Generalized Solution of the Orthogonal Procrustes Problem*, 1966.
    """
    u, _, vh = torch.linalg.svd(cross)
    return u @ vh


def balance(given: Sides) -> Tensor:
    r"""Return the matrices that make both sides of each block alike and ordered, ``[batch, block, n, n]``.

    .. math:: P^T Q = U S V^T, \qquad M P = S^{1/2} U^T, \qquad M^{-T} Q = S^{1/2} V^T

    so that both sides have the Gram matrix ``S``, the largest first. The product ``P^T Q`` is what every invertible
    matrix leaves; only signs (and turns among equal ``S``) remain free. A block whose product is singular, to the root
    of the precision of float64, has no such form: its matrix is the orthogonal one that orders the rows of both sides
    together by their norm, the largest first, which is finite.
    """
    own, dual = (torch.linalg.qr(side.mT).R if side.shape[3] else side.mT for side in given)
    if not own.shape[-2] or not dual.shape[-2]:
        return _by_norm(given)
    _, values, vh = torch.linalg.svd(own @ dual.mT, full_matrices=False)
    n = given.own.shape[2]
    if values.shape[-1] < n:
        return _by_norm(given)
    fine = values[..., -1] > 1e-8 * values[..., 0]
    matrix = values.clamp_min(1e-300).rsqrt()[..., None] * (vh @ dual)
    matrix = torch.where(fine[..., None, None], matrix, _eye(matrix))
    fine &= torch.linalg.cond(matrix) < 1e8
    return torch.where(fine[..., None, None], matrix, _by_norm(given))


def canonical_matrix(given: Sides) -> Tensor:
    """Return the matrices of the canonical form: balanced, or where one side has no features, triangular."""
    if given.own.shape[3] and given.dual.shape[3]:
        return balance(given)
    rows = given.own if given.own.shape[3] else given.dual
    n = rows.shape[2]
    if rows.shape[3] < n:
        return _by_norm(given)
    u, values, vh = torch.linalg.svd(rows, full_matrices=False)
    turn = torch.linalg.qr(vh.take_along_dim(_pivots(vh)[..., None, :], 3))
    basis = turn.Q * torch.where(turn.R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(vh)[..., None, :]
    inverse = values.clamp_min(1e-300).reciprocal()
    matrix = basis.mT @ (inverse[..., None] * u.mT)
    fine = (values[..., -1] > 1e-8 * values[..., 0])[..., None, None]
    matrix = torch.where(fine, matrix, _eye(matrix))
    matrix = matrix if given.own.shape[3] else torch.linalg.inv(matrix).mT
    return torch.where(fine, matrix, _by_norm(given))


def _pivots(rows: Tensor) -> Tensor:
    """Return as many columns as there are rows, ``[..., n]``, each with the largest rest behind those before it."""
    rest, found = rows, []
    for _ in range(rows.shape[-2]):
        found.append(rest.square().sum(-2).argmax(-1))
        column = rest.take_along_dim(found[-1][..., None, None], -1)
        column = column / torch.linalg.vector_norm(column, dim=-2, keepdim=True).clamp_min(1e-300)
        rest = rest - column @ (column.mT @ rest)
    return torch.stack(found, -1)


def _by_norm(given: Sides) -> Tensor:
    u, _, _ = torch.linalg.svd(torch.cat(given, 3), full_matrices=False)
    n = given.own.shape[2]
    return u.mT if u.shape[-1] == n else torch.linalg.svd(torch.cat(given, 3))[0].mT


def _eye(value: Tensor) -> Tensor:
    return torch.eye(value.shape[-1], dtype=value.dtype, device=value.device)
