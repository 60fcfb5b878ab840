"""Features of neurons that follow permutations, signs and phases: the siamese half of the learned aligner."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from weightspace._equivariant import EquivariantLinear
from weightspace._features import Features, layouts
from weightspace._spec import NetSpec, Param
from weightspace._weights import Weights
from weightspace.align._elements import NeuronElements

Factor = Literal["sign", "sigma"]


class Encoder(nn.Module):
    r"""An equivariant network with a vector for every neuron and element, ``{axis: [batch, size, element, channel]}``.

    An element is a sign ``s`` and a parity of the phase, see :class:`NeuronElements`. A neuron's own numbers are lifted
    to all of them: its row of an incoming weight times ``s``, its column of an outgoing one times ``sigma``, the sine
    and cosine of a bias that carries phases times ``sigma`` and ``(-1)^k``. Layers act on each element alike, so that
    a group element only permutes neurons and their elements:

    .. math:: F_{i}(g w)_h = F_{perm(i)}(w)_{h g}

    Messages go along each weight between two hidden axes: the sender's elements are summed with the factor that the
    weight has on that axis, and the receiver's are lifted again, so that no sign of the sender remains in the sum.

    Args:
        spec: the networks.
        elements: the elements of a neuron, by hidden axis.
        channels: size of the features.
        rounds: number of rounds of messages.
        trunk: channels of two equivariant linear layers on the weights' invariants (the weights themselves where there
            is one element), averaged onto the neurons; 0 for none.
    """

    def __init__(
        self, spec: NetSpec, elements: Mapping[str, NeuronElements], *, channels: int, rounds: int, trunk: int
    ) -> None:
        super().__init__()
        self.spec, self.elements, self.channels = spec, elements, channels
        self.trunk = nn.ModuleList(
            [EquivariantLinear(spec, 1, trunk), EquivariantLinear(spec, trunk, trunk)] if trunk else []
        )
        names = [axis.name for axis in spec.hidden]
        extra = {name: sum(trunk * lay.fixed for lay in layouts(spec) if name in lay.hidden) for name in names}
        own = {name: sum(width for width in self._own_widths(name)) for name in names}
        sent = {name: sum(2 * channels * self._kernel(param) for param, _ in self._edges(name)) for name in names}
        self.start = nn.ModuleDict({_key(n): nn.Linear(own[n] + extra[n] + 1, channels) for n in names})
        self.rounds = nn.ModuleList(
            nn.ModuleDict({_key(n): _Update(channels, channels + sent[n]) for n in names}) for _ in range(rounds)
        )
        self.finish = nn.ModuleDict({_key(n): nn.Linear(channels, channels) for n in names})

    def forward(self, weights: Weights, scale: Tensor) -> dict[str, Tensor]:
        """Read the networks of a batch, each parameter divided by its ``scale``, ``[param]``."""
        values = weights.replace(weights.flat / scale)
        invariant = self._invariant(weights, values)
        x = {}
        for axis in self.spec.hidden:
            parts = [*self._own(axis.name, weights, values)]
            count = len(self.elements[axis.name])
            ones = values.flat.new_ones(len(values), axis.size, count, 1)
            if axis.name in invariant:
                parts.append(invariant[axis.name][:, :, None].expand(-1, -1, count, -1))
            x[axis.name] = torch.sin(self.start[_key(axis.name)](torch.cat([*parts, ones], -1)))
        for layer in self.rounds:
            assert isinstance(layer, nn.ModuleDict)
            x = {name: layer[_key(name)](x[name], self._messages(name, x, values)) for name in x}
        out = {name: self.finish[_key(name)](value) for name, value in x.items()}
        return {n: v / torch.linalg.vector_norm(v, dim=(2, 3), keepdim=True).clamp_min(1e-12) for n, v in out.items()}

    def _invariant(self, weights: Weights, values: Weights) -> dict[str, Tensor]:
        """Average the features of the equivariant layers, which no sign or phase changes, onto the neurons."""
        if not self.trunk:
            return {}
        flat = values.flat
        if any(len(elements) > 1 for elements in self.elements.values()):
            parts = []
            for param in self.spec.params:
                own = self.elements.get(param.produces) if param.kind == "bias" else None
                step = 0.0 if own is None else own.phase_step
                angle = weights.view(param.name) * math.pi / step if step else None
                parts.append((values.view(param.name) if angle is None else angle.sin()).abs().flatten(1))
            flat = torch.cat(parts, 1)
        features = Features.read(layouts(self.spec), values.replace(flat.unsqueeze(-1)))
        for layer in self.trunk:
            assert isinstance(layer, EquivariantLinear)
            features = layer.compute(features, relu=True)
        return {axis.name: features.joined((axis.name,)) for axis in self.spec.hidden}

    def _own_widths(self, name: str) -> Iterator[int]:
        for param in self.spec.params:
            if param.kind == "bias" and param.produces == name:
                yield 2 if self.elements[name].phase_step else 1
            elif param.kind == "norm" and param.produces == name:
                yield math.prod(self.spec.shape(param.name)[1:])
            elif param.kind == "weight" and name in param.axes and not self._other(param, name):
                yield math.prod(self.spec.shape(param.name)) // self.spec.axis(name).size

    def _own(self, name: str, weights: Weights, values: Weights) -> Iterator[Tensor]:
        """Yield a neuron's own numbers under each of its elements, ``[batch, size, element, feature]``."""
        elements = self.elements[name]
        sign, sigma = (elements.tensor(field, values.flat) for field in ("sign", "sigma"))
        for param in self.spec.params:
            if param.kind == "bias" and param.produces == name:
                value = values.view(param.name)
                if not elements.phase_step:
                    yield _lift(value[:, :, None], sign)
                    continue
                angle = weights.view(param.name) * (math.pi / elements.phase_step)
                odd = 1 - 2 * elements.tensor("parity", values.flat)
                yield _lift(angle.sin()[:, :, None], sign * odd)
                yield _lift(angle.cos()[:, :, None], odd)
            elif param.kind == "norm" and param.produces == name:  # such an axis has no signs and phases
                value = values.view(param.name)
                yield _lift(value.reshape(*value.shape[:2], -1), torch.ones_like(sign))
            elif param.kind == "weight" and name in param.axes and not self._other(param, name):
                at = param.axes.index(name)
                value = values.view(param.name).movedim(at + 1, 1).flatten(2)
                yield _lift(value, sigma if at else sign)

    def _other(self, param: Param, name: str) -> str | None:
        """Return the other hidden axis of a parameter, if there is one."""
        return next((n for n in param.axes if n != name and self.spec.axis(n).hidden), None)

    def _edges(self, name: str) -> list[tuple[Param, str]]:
        """List the weights between this axis and another hidden one."""
        touching = [param for param in self.spec.params if param.kind == "weight" and name in param.axes]
        return [(param, other) for param in touching if (other := self._other(param, name)) is not None]

    def _kernel(self, param: Param) -> int:
        return math.prod(self.spec.shape(param.name)[2:])

    def _messages(self, name: str, x: Mapping[str, Tensor], values: Weights) -> list[Tensor]:
        """Send along every weight: its entries times the sender's features, and their squares times the means."""
        out = []
        for param, other in self._edges(name):
            at = param.axes.index(name)
            value = values.view(param.name).movedim(at + 1, 1)
            value = value.reshape(*value.shape[:3], -1)
            here, there = (self.elements[n].tensor(field, value) for n, field in _factors(name, other, at))
            sender = x[other]
            size = sender.shape[1]
            signed = (sender * there[:, None]).mean(2)
            plain = sender.mean(2)
            arrived = torch.einsum("bijk,bjc->bikc", value, signed).flatten(2) / math.sqrt(size)
            even = torch.einsum("bijk,bjc->bikc", value.square(), plain).flatten(2) / size
            out += [_lift(arrived, here), even[:, :, None].expand(-1, -1, len(self.elements[name]), -1)]
        return out


class _Update(nn.Module):
    """A residual step on every neuron and element."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.first = nn.Linear(wide, 2 * channels)
        self.second = nn.Linear(2 * channels, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, messages: list[Tensor]) -> Tensor:
        wide = torch.cat([x, *messages], -1)
        return self.norm(x + self.second(torch.relu(self.first(wide))))


def _lift(value: Tensor, factor: Tensor) -> Tensor:
    """Multiply ``[batch, size, feature]`` by one factor for each element, ``[batch, size, element, feature]``."""
    return value[:, :, None] * factor[:, None]


def _factors(name: str, other: str, at: int) -> list[tuple[str, Factor]]:
    """Name the factor that a weight has on the receiving and on the sending axis."""
    return [(name, "sign"), (other, "sigma")] if at == 0 else [(name, "sigma"), (other, "sign")]


def _key(name: str) -> str:
    """Turn the name of an axis into that of a module, where dots have a meaning."""
    return "axis_" + name.replace(".", "__")
