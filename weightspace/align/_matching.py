"""Weight matching: the group element that moves one network closest to another, by coordinate descent over axes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from weightspace._activation import activation
from weightspace._checks import check_generator, whole_number
from weightspace._spec import Axis, NetSpec, Param
from weightspace._symmetry import Symmetry
from weightspace._weights import Weights, check_same_spec, check_weights, summary

Group = Literal["permutation", "signed", "full"]


def distance(a: Weights, b: Weights) -> Tensor:
    """Squared Euclidean distance between the parameters of paired networks, what :func:`match` minimises.

    Args:
        a: ``[batch, param]``, or one network for all of ``b``.
        b: ``[batch, param]``.

    Returns:
        ``[batch]``.

    Raises:
        ValueError: for networks of another spec, number, dtype or device.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.align import distance
        >>> spec = ws.mlp(2, 3, 1)
        >>> distance(ws.Weights(torch.ones(2, 13), spec), ws.Weights(torch.zeros(2, 13), spec))
        tensor([13., 13.])
    """
    _check_pairs(a, b)
    return (a.flat - b.flat).square().sum(1)


def match(
    a: Weights,
    b: Weights,
    *,
    group: Group = "permutation",
    max_sweeps: int = 100,
    generator: torch.Generator | None = None,
) -> Symmetry:
    r"""The symmetry ``g`` that brings each network of ``b`` close to its partner in ``a``.

    .. math:: \min_g \sum_{p} \| a_p - (g\,b)_p \|^2

    by coordinate descent: with all other axes held, the best element on one hidden axis is a linear assignment
    between neurons; axes are solved in turn until none changes. The parameters are found by the axes they name, so
    any network that a spec describes can be matched. A local optimum, as every polynomial method gives.

    Args:
        a: the targets, ``[batch, param]``, or one network for all of ``b``.
        b: the networks to move, ``[batch, param]``.
        group: ``"permutation"``; ``"signed"``: also a sign for each neuron, where activations commute with signs;
            ``"full"``: not yet available.
        max_sweeps: most passes over all axes.
        generator: draws the order of the axes anew for every sweep, as in the paper; by default the spec's order.

    Returns:
        A ``Symmetry`` with ``g.act(b)`` close to ``a``, on the device of ``b``.

    Raises:
        TypeError: for something other than ``Weights``, a whole number of sweeps and a generator.
        ValueError: for networks of another spec, number, dtype or device, for weights that are not finite, and for
            a group that is unknown, not yet available, or not allowed by the activations.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.align import distance, match
        >>> spec, gen = ws.siren(2, 32, 1), torch.Generator().manual_seed(0)
        >>> a = ws.Weights(torch.randn(3, spec.num_params, generator=gen), spec)
        >>> b = ws.Symmetry.sample(spec, batch=3, generator=gen, scale=False, phase=False).act(a)
        >>> match(a, b).act(b).flat.equal(a.flat)
        True

    Reference:
        Ainsworth et al., *Git Re-Basin: Merging Models modulo Permutation Symmetries*, 2023, algorithm 1.
    """
    _check_pairs(a, b)
    _check_group(b.spec, group)
    whole_number("max_sweeps", max_sweeps)
    if generator is not None:
        check_generator(generator)
    for name, weights in (("a", a), ("b", b)):
        if not bool(weights.flat.isfinite().all()):
            bad = (~weights.flat.isfinite()).any(1).nonzero()[:, 0].tolist()
            raise ValueError(
                f"{name}: expected finite weights, got NaN or infinity in networks {bad[:5]}; leave them out"
            )
    descent = _Descent(a, b, signed=group == "signed")
    for _ in range(max_sweeps):
        if not descent.open.any():
            break
        for number in _order(len(b.spec.hidden), generator):
            descent.solve(number)
    return descent.element(b)


class _Descent:
    """Coordinate descent for a batch of pairs. A pair is *open* on an axis until solving it again cannot help."""

    def __init__(self, a: Weights, b: Weights, *, signed: bool) -> None:
        spec = self.spec = b.spec
        dtype = b.dtype if b.dtype in (torch.float32, torch.float64) else torch.float32
        flat = b.flat.detach().to(dtype, copy=True)
        self.target = a.replace(a.flat.detach().to(dtype).expand_as(flat))
        self.moved = b.replace(flat)
        self.signed = signed
        self.open = torch.tensor([axis.size > 1 or signed for axis in spec.hidden]).repeat(len(b), 1)
        self.touching = [[p for p in spec.params if axis.name in p.axes] for axis in spec.hidden]
        self.neighbours = [
            [k for k, other in enumerate(spec.hidden) if k != number and any(other.name in p.axes for p in touching)]
            for number, touching in enumerate(self.touching)
        ]
        self.perm = [torch.arange(axis.size, device=b.device).repeat(len(b), 1) for axis in spec.hidden]
        self.scale = [torch.ones(len(b), axis.size, dtype=dtype, device=b.device) for axis in spec.hidden]

    def solve(self, number: int) -> None:
        """Find the best element on one axis for every pair that is open there, and move the pairs that gain."""
        axis = self.spec.hidden[number]
        rows = self.open[:, number].nonzero()[:, 0]
        if not len(rows):
            return
        self.open[rows, number] = False
        linear, fixed = self._similarity(axis, self.touching[number], rows.to(self.moved.device))
        score = linear.abs() + fixed if self.signed else linear
        perm = _assign(score)
        here = torch.diagonal(linear + fixed if self.signed else linear, dim1=1, dim2=2)
        gain = score.gather(2, perm[:, :, None])[:, :, 0].sum(1) - here.sum(1)
        noise = 16 * torch.finfo(score.dtype).eps * score.abs().amax((1, 2))
        gains = gain > axis.size * noise
        kept = gains.nonzero()[:, 0]
        if not len(kept):
            return
        perm = perm[kept]
        picked = linear[kept].gather(2, perm[:, :, None])[:, :, 0]
        sign = torch.where(picked < 0, -1.0, 1.0).to(picked.dtype) if self.signed else None
        rows = rows[kept.cpu()]
        self._move(number, rows.to(perm.device), perm, sign)
        for neighbour in self.neighbours[number]:
            self.open[rows, neighbour] = True

    def _similarity(self, axis: Axis, params: list[Param], rows: Tensor) -> tuple[Tensor, Tensor]:
        """Inner products between the neurons of target and moved networks, ``[pair, size, size]``.

        They come in two parts: what a sign on the moved neuron multiplies, and what it leaves alone.
        """
        passes_sign = activation(axis.activation or "").parity != "even"
        linear = torch.zeros(len(rows), axis.size, axis.size, dtype=self.moved.dtype, device=self.moved.device)
        fixed = torch.zeros_like(linear) if self.signed else linear
        for param in params:
            position = param.axes.index(axis.name) + 1
            target = _rows(self.target.view(param.name), rows).movedim(position, 1).reshape(len(rows), axis.size, -1)
            moved = _rows(self.moved.view(param.name), rows).movedim(position, 1).reshape(len(rows), axis.size, -1)
            signs = not self.signed or position == 1 or (position == 2 and passes_sign)
            (linear if signs else fixed).baddbmm_(target, moved.mT)
        return linear, fixed

    def _move(self, number: int, rows: Tensor, perm: Tensor, sign: Tensor | None) -> None:
        name = self.spec.hidden[number].name
        step = Symmetry(self.spec, len(rows), {name: perm}, {} if sign is None else {name: sign}, check=False)
        for param in self.touching[number]:
            view = self.moved.view(param.name)
            view[rows] = step._act_on(param, _rows(view, rows))
        self.perm[number][rows] = self.perm[number][rows].gather(1, perm)
        if sign is not None:
            self.scale[number][rows] = self.scale[number][rows].gather(1, perm) * sign

    def element(self, b: Weights) -> Symmetry:
        """What has been found."""
        names = [axis.name for axis in self.spec.hidden]
        scale = {name: part.to(b.dtype) for name, part in zip(names, self.scale, strict=True)} if self.signed else {}
        return Symmetry(self.spec, len(b), dict(zip(names, self.perm, strict=True)), scale, check=False)


def _rows(value: Tensor, rows: Tensor) -> Tensor:
    return value if len(rows) == len(value) else value[rows]


def _assign(score: Tensor) -> Tensor:
    """The assignment with the largest total for each pair, ``[pair, size]``, solved on the host."""
    reduced = -score.to("cpu", torch.float64)
    for axis in (2, 1):  # a constant off a row or column changes no assignment, and leaves SciPy less to search
        reduced -= reduced.amin(axis, keepdim=True)
    cost = reduced.numpy()
    columns = np.empty(cost.shape[:2], dtype=np.int64)

    def solve(start: int) -> None:
        for pair in range(start, len(cost), workers):
            columns[pair] = linear_sum_assignment(cost[pair])[1]

    # SciPy lets go of the interpreter lock while it solves, so threads share the pairs out.
    workers = max(1, min(torch.get_num_threads(), len(cost) // 16))
    if workers == 1:
        solve(0)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(solve, range(workers)))
    return torch.from_numpy(columns).to(score.device)


def _order(count: int, generator: torch.Generator | None) -> list[int]:
    if generator is None:
        return list(range(count))
    return torch.randperm(count, generator=generator, device=generator.device).tolist()


def _check_pairs(a: Weights, b: Weights) -> None:
    for name, weights in (("a", a), ("b", b)):
        check_weights(name, weights)
        if weights.flat.ndim != 2:
            raise ValueError(f"{name}: expected [batch, param], got features of shape {list(weights.flat.shape)}")
    check_same_spec(a, b)
    if len(a) not in (1, len(b)):
        raise ValueError(f"expected pairs, as many networks in a as in b (or one), got {len(a)} and {len(b)}")
    if a.dtype != b.dtype or a.device != b.device:
        raise ValueError(
            f"expected one dtype and device, got {a.dtype} on {a.device} and {b.dtype} on {b.device}; "
            "move one with weights.to(...)"
        )


def _check_group(spec: NetSpec, group: str) -> None:
    if group == "full":
        raise ValueError(
            "group='full' (phases, positive scales) is not yet available: expected 'permutation' or 'signed'"
        )
    if group not in ("permutation", "signed"):
        raise ValueError(f"unknown group: expected 'permutation' or 'signed', got {group!r}")
    if group == "signed" and any(activation(axis.activation or "").scale != "sign" for axis in spec.hidden):
        raise ValueError(
            "group='signed': expected activations that commute with signs (sine, tanh, gaussian) on every hidden axis, "
            f"got {summary(spec)}; use group='permutation'"
        )
