"""Activation matching for modules: any architecture that has a spec."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from weightspace._spec import NetSpec
from weightspace._symmetry import Symmetry
from weightspace.align.solver._assignment import assign
from weightspace.align.solver._problem import check_group_of

TIE = 1e-9  # the bonus is far below differences between neurons, and far above rounding


@dataclass(frozen=True)
class _Run:
    """A run of the features that a layer reads: the neurons of one axis, each with its positions."""

    axis: str
    start: int
    size: int
    positions: int

    def rows(self, read: Tensor, dim: int) -> Tensor:
        """Return the run as ``[sample, neuron]`` in float64, where positions count as further samples."""
        part = read.detach().narrow(dim, self.start, self.size * self.positions).movedim(dim, -1)
        part = part.unflatten(-1, (self.size, self.positions)).transpose(-1, -2)
        return part.reshape(-1, self.size).double()


@dataclass
class _Moments:
    """The sums over batches from which correlations follow."""

    size: int
    count: int = 0
    sums: list[Tensor] = field(default_factory=list)

    def add(self, a: Tensor, b: Tensor) -> None:
        new = [a.sum(0), b.sum(0), a.square().sum(0), b.square().sum(0), a.T @ b]
        self.sums = [old + more for old, more in zip(self.sums, new, strict=True)] if self.sums else new
        self.count += len(a)

    def score(self) -> Tensor:
        """Return correlations ``[size, size]``, plus a small bonus for staying in place, which decides among ties.

        A neuron that never varies correlates with none.
        """
        mean_a, mean_b, square_a, square_b, product = (x / self.count for x in self.sums)
        spread = [
            (square - mean.square()).clamp_min(0).sqrt() for square, mean in ((square_a, mean_a), (square_b, mean_b))
        ]
        scale = [torch.where(s > 1e-9 * s.amax().clamp_min(1e-300), 1 / s.clamp_min(1e-300), 0.0) for s in spread]
        found = (product - mean_a[:, None] * mean_b) * scale[0][:, None] * scale[1]
        return found + TIE * torch.eye(self.size).to(found)


@torch.no_grad()
def match_responses(
    module: nn.Module, spec: NetSpec, a: Mapping[str, Tensor], b: Mapping[str, Tensor], batches: Iterable[Tensor]
) -> Symmetry:
    """Find the permutations that pair the neurons of ``b`` with those of ``a`` whose responses correlate most.

    A neuron's response is the input of the layers that consume it: after its activation, its norm, its residual sum.
    Correlations are summed over batches and positions, so that memory does not grow with the number of inputs.

    Raises:
        TypeError: for batches that are not tensors.
        ValueError: for no input at all, inputs that are not finite, or an axis that no linear or convolution module
            reads.
    """
    check_group_of(spec, "permutation")
    runs = _runs(module, spec)
    names = dict.fromkeys(run.axis for own in runs.values() for run in own)
    if missing := [axis.name for axis in spec.hidden if axis.name not in names]:
        raise ValueError(
            f"batches: expected every hidden axis to be read by an nn.Linear or nn.Conv module, {missing} are not; "
            "leave batches out to match by weights"
        )
    nets = [_loaded(module, state) for state in (a, b)]
    moments = {axis.name: _Moments(axis.size) for axis in spec.hidden}
    seen = 0
    for batch in batches:
        batch = _checked(batch, nets[0])
        seen += len(batch)
        for (run, mine), (_, theirs) in zip(*(_responses(net, runs, batch) for net in nets), strict=True):
            moments[run.axis].add(mine, theirs)
    if not seen:
        raise ValueError("batches: expected at least one input, got none")
    perm = {name: assign(found.score()[None]).cpu() for name, found in moments.items()}
    return Symmetry(spec, 1, perm)


def _checked(batch: Tensor, net: nn.Module) -> Tensor:
    """Return a batch in the module's dtype, on its device."""
    if not isinstance(batch, Tensor):
        raise TypeError(
            f"batches: expected tensors of inputs, got {type(batch).__name__}; of pairs with labels take the first"
        )
    if not bool(batch.isfinite().all()):
        raise ValueError("batches: expected finite inputs, got NaN or infinity; leave those inputs out")
    like = next(net.parameters())
    return batch.to(like.device, like.dtype if batch.is_floating_point() else None)


def _loaded(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Copy the module, with these weights and in the mode of inference."""
    net = copy.deepcopy(module).eval()
    net.load_state_dict(state)
    return net


def _runs(module: nn.Module, spec: NetSpec) -> dict[str, list[_Run]]:
    """Find for every linear and convolution module the runs of hidden neurons among the features that it reads."""
    layers = {name for name, child in module.named_modules() if isinstance(child, nn.Linear | nn.modules.conv._ConvNd)}
    hidden = {axis.name for axis in spec.hidden}
    found: dict[str, list[_Run]] = {}
    for key, params in spec.by_state_key.items():
        name, _, what = key.rpartition(".")
        start = 0
        params = params if spec.joined_along(key) else params[:1]  # all read the same
        for param in params if what == "weight" and name in layers and params[0].kind == "weight" else ():
            shape = spec.shape(param.name)
            positions = shape[2] if param.folded else 1
            if param.axes[1] in hidden:
                found.setdefault(name, []).append(_Run(param.axes[1], start, shape[1], positions))
            start += shape[1] * positions
    return found


def _responses(net: nn.Module, runs: Mapping[str, list[_Run]], batch: Tensor) -> Iterator[tuple[_Run, Tensor]]:
    """Yield the features of each run on one batch."""
    reads: dict[str, Tensor] = {}

    def keep(name: str) -> Any:  # a copy, because the layers that follow may write into it
        return lambda _, args, named: reads.update({name: (args[0] if args else named["input"]).clone()})

    handles = [net.get_submodule(name).register_forward_pre_hook(keep(name), with_kwargs=True) for name in runs]
    try:
        net(batch)
    finally:
        for handle in handles:
            handle.remove()
    for name, own in runs.items():
        dim = -1 if isinstance(net.get_submodule(name), nn.Linear) else 1
        for run in own:
            yield run, run.rows(reads[name], dim)
