"""``Symmetry``: one group element per network, on every hidden axis a permutation, a scale, phase or linear map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from weightspace._random import rand, randn
from weightspace._spec import Axis, NetSpec, Param
from weightspace._weights import Weights

Group = Literal["none", "permutation", "signed", "scaled", "full"]
"""The symmetry groups by name, each within the next: nothing, permutations of neurons, those and signs, those and
positive scales, all that the activations allow (phases and linear maps too)."""
GROUPS: tuple[Group, ...] = get_args(Group)
Part = Literal["perm", "scale", "shift", "linear"]
PARTS: tuple[Part, ...] = get_args(Part)

_MOST_CONDITION = 1e12
MOST_AXES = 4
_CACHED = 2**18  # scalars of a batch whose temporaries stay in the cache while one chunk is moved


@dataclass(frozen=True, eq=False)
class Symmetry:
    r"""A batch of group elements that leave the function of each network as it is.

    On a hidden axis the new neuron ``i`` is made from the old neuron ``perm[i]``:

    .. math:: z'_i = s_i \, z_{perm[i]} + k_i \, unit, \qquad unit = \pi / \omega

    and what the next parameter reads is divided by ``sigma(s_i, k_i)`` of the activation table. On a linear axis, whose
    blocks (heads) ``b`` have a matrix each, it is

    .. math:: z'_b = M_b \, z_{perm[b]}

    and what reads it is multiplied by :math:`M_b^{-1}`; what produces it as a dual, such as the keys of attention, by
    :math:`M_b^{-T}`. An axis that a mapping does not name is not touched: a pure sign flip needs no gather, a pure
    permutation no multiplication.

    Args:
        spec: the networks it acts on.
        batch: number of group elements.
        perm: ``{axis: int64 [batch, size]}``; on axes of blocks whole blocks move, alike on axes that follow another.
        scale: ``{axis: float [batch, size]}``, positive factors or signs, as the activation allows.
        shift: ``{axis: float [batch, size]}``, integers: steps of half a period.
        linear: ``{axis: float [batch, block, n, n]}``, invertible matrices on linear axes of blocks of size ``n``.
        check: whether to look at the numbers too; off where they are allowed by construction.

    Raises:
        ValueError: for axes that are not hidden, shapes that do not fit, or a part that the activation does not allow.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.Weights(torch.randn(3, spec.num_params, generator=gen), spec)
        >>> g, h = (ws.Symmetry.sample(spec, batch=3, generator=gen) for _ in range(2))
        >>> torch.allclose((g @ h).act(w).flat, g.act(h.act(w)).flat, atol=1e-5)
        True
    """

    spec: NetSpec
    batch: int
    perm: Mapping[str, Tensor] = field(default_factory=dict)
    scale: Mapping[str, Tensor] = field(default_factory=dict)
    shift: Mapping[str, Tensor] = field(default_factory=dict)
    linear: Mapping[str, Tensor] = field(default_factory=dict)
    check: InitVar[bool] = True

    def __post_init__(self, check: bool) -> None:
        if not isinstance(self.spec, NetSpec):
            raise TypeError(
                f"spec: expected a NetSpec, got {type(self.spec).__name__}; make one with ws.siren or ws.mlp"
            )
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 0:
            raise ValueError(f"batch: expected a whole number of at least 0, got {self.batch!r}")
        hidden = {axis.name: axis for axis in self.spec.hidden}
        for kind in PARTS:
            for name, value in getattr(self, kind).items():
                if name not in hidden:
                    raise ValueError(f"{kind}: expected hidden axes {sorted(hidden)}, got {name!r}")
                if not isinstance(value, Tensor):
                    raise TypeError(f"{kind}[{name!r}]: expected a tensor, got {type(value).__name__}")
                axis = hidden[name]
                sizes = (axis.blocks, axis.block_size, axis.block_size) if kind == "linear" else (axis.size,)
                if tuple(value.shape) != (self.batch, *sizes):
                    raise ValueError(
                        f"{kind}[{name!r}]: expected shape {[self.batch, *sizes]}, got {list(value.shape)}"
                    )
        self._check_allowed()
        if check:
            self._check_numbers()

    def __repr__(self) -> str:
        """Say which parts move which axes, in one line whatever the sizes."""
        parts = [f"{kind} of {_few_axes(list(getattr(self, kind)))}" for kind in PARTS if getattr(self, kind)]
        return f"Symmetry({self.batch} x {self.spec}, {'; '.join(parts) or 'identity'})"

    def _check_allowed(self) -> None:
        """Refuse parts that the activation table does not allow: they would change the function without a word."""
        for name in self.scale:
            axis = self.spec.axis(name)
            if axis.symmetry.scale == "none":
                raise ValueError(f"scale[{name!r}]: {axis.activation} commutes with no scale or sign; leave it out")
        for name in self.linear:
            if not self.spec.axis(name).symmetry.linear:
                raise ValueError(f"linear[{name!r}]: expected a linear axis, got {self.spec.axis(name).activation}")
        for name in self.shift:
            axis = self.spec.axis(name)
            if not axis.symmetry.periodic:
                raise ValueError(f"shift[{name!r}]: expected a periodic activation, got {axis.activation}")
            if self.spec.bias_of(name) is None:
                biases = [p.name for p in self.spec.params if p.kind == "bias" and p.produces == name]
                raise ValueError(f"shift[{name!r}]: a phase needs exactly one bias on its axis, got {biases}")

    def _check_numbers(self) -> None:
        """Refuse numbers that are no group element."""
        for name, value in self.perm.items():
            if value.dtype != torch.int64 or not bool((value.sort(1).values == _iota(value)).all()):
                raise ValueError(
                    f"perm[{name!r}]: expected an int64 permutation of 0 to {value.shape[1] - 1} in each row"
                )
        for name, value in self.scale.items():
            signs = self.spec.axis(name).symmetry.scale == "sign"
            allowed = value.abs() == 1 if signs else (value > 0) & value.isfinite()
            if not bool(allowed.all()):
                raise ValueError(
                    f"scale[{name!r}]: expected {'signs, +1 or -1' if signs else 'positive numbers'} alone"
                )
        for name, value in self.shift.items():
            if not bool((value == value.round()).all()) or not bool(value.isfinite().all()):
                raise ValueError(f"shift[{name!r}]: expected whole numbers, steps of half a period")
        for name, value in self.linear.items():
            if not bool(value.isfinite().all()) or not bool((_condition(value) < _MOST_CONDITION).all()):
                raise ValueError(
                    f"linear[{name!r}]: expected finite matrices with a condition below {_MOST_CONDITION:g}"
                )
        for axis in self.spec.blocked:
            self._check_blocks(axis)

    def _check_blocks(self, axis: Axis) -> None:
        """Refuse permutations that tear blocks apart, or move them otherwise than the axis that they follow."""
        rows = torch.arange(axis.blocks).expand(self.batch, -1)
        own, leads = rows, rows
        if axis.name in self.perm:
            inside = self.perm[axis.name].cpu().unflatten(1, (axis.blocks, axis.block_size))
            own = inside[:, :, 0] // axis.block_size
            whole = inside.sort(2).values if axis.symmetry.linear else inside
            if not bool((whole == own[:, :, None] * axis.block_size + torch.arange(axis.block_size)).all()):
                within = "" if axis.symmetry.linear else ", in their order inside"
                raise ValueError(f"perm[{axis.name!r}]: expected whole blocks of {axis.block_size} to move{within}")
        if axis.follows is not None and axis.follows in self.perm:
            leader = self.spec.axis(axis.follows)
            leads = self.perm[axis.follows].cpu()[:, :: leader.block_size] // leader.block_size
        if axis.follows is not None and not bool((own == leads).all()):
            raise ValueError(
                f"perm[{axis.name!r}]: expected its blocks to move with those of {axis.follows!r}, got another order"
            )

    def __len__(self) -> int:
        return self.batch

    def __getitem__(self, index: slice | Tensor) -> Symmetry:
        """The group elements at ``index`` (a slice or an index tensor)."""
        parts = [{name: value[index] for name, value in getattr(self, kind).items()} for kind in PARTS]
        return Symmetry(self.spec, len(torch.arange(self.batch)[_cpu(index)]), *parts, check=False)

    @classmethod
    def identity(cls, spec: NetSpec, *, batch: int) -> Symmetry:
        """Make the elements that change nothing."""
        return cls(spec, batch)

    def identity_like(self) -> Symmetry:
        """Make as many elements that change nothing, with every part that these have written out.

        Example:
            >>> import weightspace as ws
            >>> spec, gen = ws.siren(2, 3, 1), torch.Generator().manual_seed(0)
            >>> ws.Symmetry.sample(spec, batch=1, generator=gen).identity_like().perm["h1"]
            tensor([[0, 1, 2]])
        """
        perm = {n: _iota(v).expand_as(v).contiguous() for n, v in self.perm.items()}
        scale = {n: torch.ones_like(v) for n, v in self.scale.items()}
        shift = {n: torch.zeros_like(v) for n, v in self.shift.items()}
        linear = {n: _eye(v).expand_as(v).contiguous() for n, v in self.linear.items()}
        return Symmetry(self.spec, self.batch, perm, scale, shift, linear, check=False)

    @classmethod
    def cat(cls, parts: Sequence[Symmetry]) -> Symmetry:
        """Join elements for one spec, in their order; where one part lacks an entry, it has the identity's.

        Raises:
            ValueError: for no parts, or parts for different specs.

        Example:
            >>> import weightspace as ws
            >>> spec, gen = ws.siren(2, 3, 1), torch.Generator().manual_seed(0)
            >>> g = ws.Symmetry.sample(spec, batch=2, generator=gen)
            >>> len(ws.Symmetry.cat([g, ws.Symmetry.identity(spec, batch=3)]))
            5
        """
        if not parts or any(part.spec != parts[0].spec for part in parts):
            raise ValueError(f"expected at least one part, all for one spec, got {[part.spec for part in parts]}")
        parts = _completed(parts)
        joined = [
            {name: torch.cat([getattr(part, kind)[name] for part in parts]) for name in getattr(parts[0], kind)}
            for kind in PARTS
        ]
        return cls(parts[0].spec, sum(len(part) for part in parts), *joined, check=False)

    @classmethod
    def where(cls, condition: Tensor, a: Symmetry, b: Symmetry) -> Symmetry:
        """Choose the element of ``a`` where the condition ``[batch]`` holds, and that of ``b`` elsewhere.

        Raises:
            ValueError: for elements for different specs or batches, or a condition of another length.

        Example:
            >>> import weightspace as ws
            >>> spec, gen = ws.siren(2, 3, 1), torch.Generator().manual_seed(0)
            >>> g = ws.Symmetry.sample(spec, batch=2, generator=gen)
            >>> one = ws.Symmetry.where(torch.tensor([True, False]), g, ws.Symmetry.identity(spec, batch=2))
            >>> torch.equal(one.perm["h1"][0], g.perm["h1"][0]), one.perm["h1"][1].tolist()
            (True, [0, 1, 2])
        """
        if a.spec != b.spec or not a.batch == b.batch == len(condition):
            raise ValueError(
                f"expected elements for one spec and batch, and a condition for each, got {a.spec} x {a.batch}, "
                f"{b.spec} x {b.batch} and {list(condition.shape)}"
            )
        a, b = _completed([a, b])
        chosen = [
            {
                name: torch.where(condition.view(-1, *[1] * (value.ndim - 1)), value, getattr(b, kind)[name])
                for name, value in getattr(a, kind).items()
            }
            for kind in PARTS
        ]
        return cls(a.spec, a.batch, *chosen, check=False)

    @classmethod
    def sample(
        cls,
        spec: NetSpec,
        *,
        batch: int,
        generator: torch.Generator,
        group: Group = "full",
        parts: Sequence[Part] = PARTS,
        max_scale: float = 2.0,
        max_shift: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> Symmetry:
        """Draw independent elements of a group, on every axis as far as its activation allows.

        Args:
            spec: the networks to act on.
            batch: number of elements.
            generator: source of randomness; its device is the device of the result.
            group: ``"permutation"``: uniform permutations; ``"signed"``: signs too, with probability 1/2;
                ``"scaled"``: positive scales too, log-uniform in [1/max_scale, max_scale]; ``"full"``: phase steps too,
                uniform in [-max_shift, max_shift], and on linear axes a matrix :math:`U S V^T` for each block, with
                uniform rotations ``U``, ``V`` and singular values log-uniform in [1/max_scale, max_scale].
            parts: which parts of the group's elements to draw, so that ``parts=("scale",)`` leaves out permutations.
            max_scale: bound of positive scales and of singular values, at least 1.
            max_shift: bound of the phase steps; unbounded phase is known to wreck accuracy.
            dtype: of the scales and shifts.

        Raises:
            ValueError: for an unknown group or part, or if a bound is out of range.

        Example:
            >>> import weightspace as ws
            >>> spec, gen = ws.siren(2, 8, 1), torch.Generator().manual_seed(0)
            >>> g = ws.Symmetry.sample(spec, batch=3, generator=gen, group="signed")
            >>> sorted(g.perm), sorted(g.scale), sorted(g.shift)
            (['h1'], ['h1'], [])
        """
        check_group(group)
        if unknown := [part for part in parts if part not in PARTS]:
            raise ValueError(f"parts: expected some of {list(PARTS)}, got {unknown[0]!r}")
        if not 1 <= max_scale < float("inf") or max_shift != int(max_shift) or max_shift < 0:
            raise ValueError(f"expected max_scale >= 1 and a whole max_shift >= 0, got {max_scale} and {max_shift}")
        level = GROUPS.index(group)
        kinds = {"sign": level >= GROUPS.index("signed"), "positive": level >= GROUPS.index("scaled")}
        perms, scales, shifts, linears = {}, {}, {}, {}
        if "perm" in parts and level:
            for axis in spec.blocked:
                perms[axis.name] = _sample_blocks(axis, spec, perms, batch, generator)
        for axis in spec.hidden:
            shape, row = (batch, axis.size), axis.symmetry
            if "perm" in parts and level and axis.size > 1 and axis.blocks == 1:
                perms[axis.name] = rand(shape, generator=generator, dtype=torch.float32).argsort(1)
            if "linear" in parts and group == "full" and row.linear:
                linears[axis.name] = _sample_linear(axis, batch, max_scale, generator).to(dtype)
            if "scale" in parts and kinds.get(row.scale, False):
                u = 2 * rand(shape, generator=generator, dtype=dtype) - 1
                scales[axis.name] = torch.where(u < 0, -1.0, 1.0).to(dtype) if row.scale == "sign" else max_scale**u
            phases = "shift" in parts and group == "full" and row.periodic and max_shift > 0
            if phases and spec.bias_of(axis.name) is not None:  # a phase is a shift of the one bias
                u = rand(shape, generator=generator, dtype=dtype)
                shifts[axis.name] = (u * (2 * max_shift + 1)).floor().clamp(max=2 * max_shift) - max_shift
        return cls(spec, batch, perms, scales, shifts, linears, check=False)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Symmetry:
        """Move, and cast scales, shifts and matrices; permutations stay integers."""
        return Symmetry(
            self.spec,
            self.batch,
            {n: v.to(device=device) for n, v in self.perm.items()},
            {n: v.to(device=device, dtype=dtype) for n, v in self.scale.items()},
            {n: v.to(device=device, dtype=dtype) for n, v in self.shift.items()},
            {n: v.to(device=device, dtype=dtype) for n, v in self.linear.items()},
            check=False,
        )

    def sigma(self, axis: str) -> Tensor | None:
        """The factor on what leaves the activation of a hidden axis; ``None`` stands for one."""
        row = self.spec.axis(axis).symmetry
        return row.sigma(self.scale.get(axis), self.shift.get(axis))

    def act(self, weights: Weights) -> Weights:
        """Move every network along its element: the same function from other weights.

        Args:
            weights: ``[batch, param]``, or ``[batch, param, channel]`` for features that transform by permutation
                and factors (no phase).

        Raises:
            ValueError: for networks of another spec or number, or for phases on features.
        """
        if not isinstance(weights, Weights):
            raise TypeError(f"expected Weights, got {type(weights).__name__}; wrap the tensor: ws.Weights(flat, spec)")
        if weights.spec != self.spec:
            raise ValueError(f"expected networks of {self.spec}, got {weights.spec}")
        if len(weights) != self.batch:
            raise ValueError(f"expected {self.batch} networks, one for each group element, got {len(weights)}")
        if weights.flat.ndim == 3 and self.shift:
            raise ValueError("features with a channel axis carry no phase; sample with group='scaled'")
        element = self.to(weights.device, weights.dtype)
        out = torch.empty_like(weights.flat)
        moved = weights.replace(out)
        for rows in _chunks(weights):
            part = element if rows is None else element[rows]
            source, target = (weights, moved) if rows is None else (weights[rows], moved[rows])
            for param in self.spec.params:
                target.view(param.name).copy_(part._act_on(param, source.view(param.name)))
        return moved

    def _act_on(self, param: Param, value: Tensor) -> Tensor:
        given, value = value, self._gather(param, value)
        tail = value.ndim
        produced, consumed = param.produces, param.consumes
        if produced in self.linear:
            value = _blockwise(self._inverses[produced].mT if param.dual else self.linear[produced], value, 1)
        if consumed is not None and consumed in self.linear:
            value = _blockwise(self._inverses[consumed].mT, value, 2)
        if (s := self.scale.get(produced)) is not None:
            value = _times(value, _along(s, 1, tail), fresh=value is not given)
        if param.kind == "bias" and (k := self.shift.get(produced)) is not None:
            axis = self.spec.axis(produced)
            value = value + _along(k * axis.phase_step, 1, tail)
        if consumed is not None and self.spec.axis(consumed).hidden and (sigma := self.sigma(consumed)) is not None:
            value = _times(value, _along(sigma.reciprocal(), 2, tail), fresh=value is not given)
        return value

    @cached_property
    def _inverses(self) -> dict[str, Tensor]:
        return {name: _inverse(value) for name, value in self.linear.items()}

    def _gather(self, param: Param, value: Tensor) -> Tensor:
        """One gather over all permuted axes of a parameter, whatever their number."""
        moved = [(i, self.perm[name]) for i, name in enumerate(param.axes, start=1) if name in self.perm]
        if not moved:
            return value
        last = moved[-1][0]
        sizes = value.shape[1 : last + 1]
        index = None
        for i, size in enumerate(sizes, start=1):
            here = dict(moved).get(i)
            here = torch.arange(size, device=value.device)[None] if here is None else here
            index = here if index is None else (index[:, :, None] * size + here[:, None, :]).flatten(1)
        assert index is not None
        rest = value.shape[last + 1 :]
        flat = value.reshape(value.shape[0], sizes.numel(), rest.numel())
        if flat.shape[2] == 1:
            return flat[:, :, 0].gather(1, index.expand(flat.shape[0], -1)).reshape(value.shape)
        index = index[:, :, None].expand(flat.shape[0], -1, flat.shape[2])
        return flat.gather(1, index).reshape(value.shape[0], *sizes, *rest)

    def __matmul__(self, other: Symmetry) -> Symmetry:
        """Composition: ``(g @ h).act(w)`` is ``g.act(h.act(w))``."""
        if not isinstance(other, Symmetry):
            return NotImplemented
        if self.spec != other.spec or self.batch != other.batch:
            raise ValueError(
                f"expected elements for one spec and batch, got {self.spec} x {self.batch} "
                f"and {other.spec} x {other.batch}"
            )
        perm, scale, shift, linear = {}, {}, {}, {}
        for name in (axis.name for axis in self.spec.hidden):
            mine = self.perm.get(name)
            linear[name] = _matrix_product(self.linear.get(name), _conjugated(other.linear.get(name), mine))
            theirs = [_gather_rows(part.get(name), mine) for part in (other.perm, other.scale, other.shift)]
            perm[name] = theirs[0] if other.perm.get(name) is not None else mine
            scale[name] = _product(self.scale.get(name), theirs[1])
            carried = _product(self.scale.get(name), theirs[2]) if theirs[2] is not None else None
            shift[name] = _sum(self.shift.get(name), carried)
        parts = [_present(part) for part in (perm, scale, shift, linear)]
        return Symmetry(self.spec, self.batch, *parts, check=False)

    def inverse(self) -> Symmetry:
        """The elements that undo these."""
        perm, scale, shift, linear = {}, {}, {}, {}
        for name in (axis.name for axis in self.spec.hidden):
            back = self.perm[name].argsort(1) if name in self.perm else None
            s, k = self.scale.get(name), self.shift.get(name)
            perm[name] = back
            scale[name] = None if s is None else _gather_rows(1 / s, back)
            shift[name] = None if k is None else _gather_rows(-k if s is None else -k / s, back)
            linear[name] = _conjugated(self._inverses.get(name), back)
        parts = [_present(part) for part in (perm, scale, shift, linear)]
        return Symmetry(self.spec, self.batch, *parts, check=False)


def check_group(group: str, allowed: Sequence[str] = GROUPS) -> None:
    """Raise ``ValueError`` for a group that is not among the allowed ones."""
    if group not in allowed:
        raise ValueError(f"group: expected one of {list(allowed)}, got {group!r}")


def _completed(elements: Sequence[Symmetry]) -> list[Symmetry]:
    """Return the elements with the same entries in each, the identity's where one had none."""
    makers = {"perm": lambda v, n: _iota(v).expand(n, -1), "scale": lambda v, n: v.new_ones(n, v.shape[1])}
    makers["shift"] = lambda v, n: v.new_zeros(n, v.shape[1])
    makers["linear"] = lambda v, n: _eye(v).expand(n, *v.shape[1:])
    out = []
    for element in elements:
        parts = []
        for kind, make in makers.items():
            models = {name: value for other in elements for name, value in getattr(other, kind).items()}
            own = getattr(element, kind)
            parts.append({name: own[name] if name in own else make(v, element.batch) for name, v in models.items()})
        out.append(Symmetry(element.spec, element.batch, *parts, check=False))
    return out


def _sample_blocks(
    axis: Axis, spec: NetSpec, drawn: Mapping[str, Tensor], batch: int, generator: torch.Generator
) -> Tensor:
    """Draw a permutation of blocks, or take that of the axis to follow; of linear blocks also the order inside."""
    shape = (batch, axis.blocks, axis.block_size)
    if axis.follows is None:
        blocks = rand(shape[:2], generator=generator, dtype=torch.float32).argsort(1)
    else:
        leader = spec.axis(axis.follows)
        blocks = drawn[leader.name][:, :: leader.block_size] // leader.block_size
    inside = torch.arange(axis.block_size, device=generator.device).expand(shape)
    if axis.symmetry.linear:
        inside = rand(shape, generator=generator, dtype=torch.float32).argsort(2)
    return (blocks[:, :, None] * axis.block_size + inside).flatten(1)


def _sample_linear(axis: Axis, batch: int, max_scale: float, generator: torch.Generator) -> Tensor:
    """Draw a matrix for each block, ``[batch, block, n, n]`` in float64, with a condition of at most max_scale ** 2."""
    n = axis.block_size
    draws = randn((2, batch, axis.blocks, n, n), generator=generator, dtype=torch.float64)
    left, right = (q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :] for q, r in map(torch.linalg.qr, draws))
    u = 2 * rand((batch, axis.blocks, 1, n), generator=generator, dtype=torch.float64) - 1
    return (left * max_scale**u) @ right.mT


def _blockwise(matrix: Tensor, value: Tensor, dim: int) -> Tensor:
    """Multiply the blocks of one axis of ``[batch, ...]`` by matrices ``[batch, block, n, n]``."""
    moved = value.movedim(dim, 1)
    rest = math.prod(moved.shape[2:])
    parts = moved.reshape(len(value), matrix.shape[1], matrix.shape[3], rest)
    return (matrix.to(value.dtype) @ parts).reshape(moved.shape).movedim(1, dim)


def _inverse(value: Tensor) -> Tensor:
    return torch.linalg.inv(value.double()).to(value.dtype)


def _condition(value: Tensor) -> Tensor:
    """Return the condition of each matrix, infinity where it is singular."""
    return torch.linalg.cond(value.double())


def _conjugated(value: Tensor | None, perm: Tensor | None) -> Tensor | None:
    """Return ``P value P^-1`` for matrices of blocks, with ``(P z)_i = z_perm[i]``."""
    if value is None or perm is None:
        return value
    batch, blocks, n, _ = value.shape
    perm = perm.view(batch, blocks, n)
    row = torch.arange(batch, device=perm.device)[:, None, None, None]
    inside = perm % n
    return value[row, (perm[:, :, :1] // n)[..., None], inside[..., :, None], inside[..., None, :]]


def _matrix_product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a @ b


def _eye(value: Tensor) -> Tensor:
    """Return the identity of the size and dtype of matrices ``[..., n, n]``."""
    return torch.eye(value.shape[-1], dtype=value.dtype, device=value.device)


def _chunks(weights: Weights) -> list[slice] | list[None]:
    """Rows that fit the cache together on the host; a single ``None`` stands for all of them."""
    size = max(1, _CACHED * len(weights) // max(1, weights.flat.numel()))
    if weights.device.type != "cpu" or len(weights) <= size:
        return [None]
    return [slice(start, start + size) for start in range(0, len(weights), size)]


def _along(value: Tensor, axis: int, ndim: int) -> Tensor:
    """``[batch, size]`` reshaped so that ``size`` broadcasts along ``axis`` of a tensor of ``ndim`` axes."""
    shape = [1] * ndim
    shape[0], shape[axis] = value.shape
    return value.reshape(shape)


def _times(value: Tensor, factor: Tensor, *, fresh: bool) -> Tensor:
    """A product, in place where ``value`` is a temporary of ours: one pass over memory less."""
    return value.mul_(factor) if fresh and not factor.requires_grad else value * factor


def _iota(value: Tensor) -> Tensor:
    return torch.arange(value.shape[1], device=value.device)


def _gather_rows(value: Tensor | None, perm: Tensor | None) -> Tensor | None:
    return value if value is None or perm is None else value.gather(1, perm)


def _product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a * b


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _present(parts: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    return {name: value for name, value in parts.items() if value is not None}


def _cpu(index: slice | Tensor) -> slice | Tensor:
    return index.cpu() if isinstance(index, Tensor) else index


def _few_axes(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - MOST_AXES} more axes" if len(names) > MOST_AXES else ""
    return ", ".join(names[:MOST_AXES]) + more
