"""From what ``spec_of`` met in a graph to a spec, and the check of that spec on the module itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from weightspace._random import rand, randn
from weightspace._spec import Axis, Init, NetSpec, Param
from weightspace._symmetry import Symmetry
from weightspace._trace_lanes import Entry, Lane, Ledger, Signal
from weightspace._trace_rules import Refused, refuse
from weightspace._weights import Weights


def build(ledger: Ledger, module: nn.Module, source: Signal, output: Signal, init: Init) -> NetSpec:
    """Axes from lanes, parameters from entries, in the order of the state_dict."""
    state = [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]
    calls: dict[str, set[int]] = {}
    for number, entry in enumerate(ledger.entries):
        calls.setdefault(entry.key, set()).add(number)
    if twice := [key for key, at in calls.items() if max(at) - min(at) + 1 != len(at) or _joined(ledger, key) > 1]:
        refuse(f"parameters {twice} used more than once")
    if unused := [name for name in state if name not in calls]:
        refuse(f"parameters {unused} that the output does not depend on through known layers; remove them")
    if unknown := [name for name in calls if name not in state]:
        refuse(f"parameters {unknown} that are not in the state_dict {state}")
    outputs = output.lanes()
    for lane in outputs:
        lane.fixed = lane.fixed or "out"
    names = _Names(source.lanes()[0], outputs)
    entries = sorted(ledger.entries, key=lambda entry: state.index(entry.key))
    params = [names.param(entry, [e for e in entries if e.key == entry.key]) for entry in entries]
    end = names.of(outputs[0]) if len(outputs) == 1 else "out"
    if len(outputs) > 1:
        names.axes["out"] = Axis("out", sum(lane.size for lane in outputs))
    if not any(axis.hidden for axis in names.axes.values()):
        refuse("a network without a hidden axis")
    ends = {name: names.axes.pop(name) for name in dict.fromkeys(("in", end)) if name in names.axes}
    ends.setdefault("in", Axis("in", source.lanes()[0].size))
    axes = (ends.pop("in"), *names.axes.values(), *ends.values())
    try:
        return NetSpec(axes, tuple(params), output=end, init=init)
    except ValueError as error:
        raise Refused(str(error)) from error


def _joined(ledger: Ledger, key: str) -> float:
    """How many times over the entries of one key fill its tensor."""
    total = 0
    for entry in ledger.entries:
        if entry.key == key:
            sizes = [axis.root().size if isinstance(axis, Lane) else axis[1] for axis in entry.axes]
            total += int(torch.Size(sizes).numel())
    return total / max(1, int(torch.Size(ledger.shapes[key]).numel()))


class _Names:
    """Names for lanes: ``in``, ``out`` and h1, h2, ... in the order of the state dict."""

    def __init__(self, source: Lane, outputs: list[Lane]) -> None:
        self.axes: dict[str, Axis] = {}
        self.names: dict[Lane, str] = {source.root(): "in"}
        self.hidden = 0
        many = len(outputs) > 1
        for number, lane in enumerate(outputs, start=1):
            self.names.setdefault(lane, f"out{number}" if many else "out")
        for lane, name in self.names.items():
            self.axes[name] = Axis(name, lane.size)

    def of(self, lane: Lane) -> str:
        lane = lane.root()
        if lane not in self.names:
            self.hidden += 1
            name = self.names[lane] = f"h{self.hidden}"
            self.axes[name] = Axis(name, lane.size, lane.name_of_activation())
        return self.names[lane]

    def param(self, entry: Entry, parts: list[Entry]) -> Param:
        axes: list[str] = []
        for axis in entry.axes:
            name = self.of(axis) if isinstance(axis, Lane) else axis[0]
            if not isinstance(axis, Lane):
                self.axes.setdefault(name, Axis(name, axis[1]))
            elif name in axes:
                name = self._again(name, entry)
            axes.append(name)
        name = entry.key if len(parts) == 1 else f"{entry.key}[{parts.index(entry)}]"
        return Param(name, tuple(axes), entry.kind, entry.key, entry.folded)  # type: ignore[arg-type]

    def _again(self, name: str, entry: Entry) -> str:
        """Nothing permutes an end of the network: it may bear a second name. A hidden axis may not."""
        if self.axes[name].hidden:
            refuse(
                f"a sum (add) that ties what {entry.key!r} reads to what it makes: one permutation would act twice on "
                "it, which a spec cannot say"
            )
        self.axes[f"{name}-too"] = Axis(f"{name}-too", self.axes[name].size)
        return f"{name}-too"


@torch.no_grad()
def verify(module: nn.Module, spec: NetSpec, example: Tensor) -> None:
    """Random symmetries of the spec must leave the module's outputs, its parameters moved a little off their values."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        state[name] = value
        if value.is_floating_point():
            noise = randn(value.shape, generator=generator, dtype=torch.float64)
            state[name] = value.nan_to_num(0.0, 0.0, 0.0) + 0.05 * noise
            if name.endswith("running_var"):
                state[name] = 0.5 + rand(value.shape, generator=generator, dtype=torch.float64)
    try:
        weights = Weights.from_state_dicts([state, state], spec)
    except ValueError as error:
        raise Refused(f"the traced shapes are not the module's: {error}") from error
    moved = Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64).act(weights)
    with torch.random.fork_rng(devices=[]):
        expected = functional_call(module, state, (example,))
        for row in moved.state_dicts():
            difference = float((functional_call(module, {**state, **row}, (example,)) - expected).abs().max())
            if not difference <= 1e-8 * max(1.0, float(expected.abs().max())):
                refuse(
                    f"moving the weights along the traced symmetries changes the output by {difference:.3e}; does the "
                    "module have hooks, or operators that write in place?"
                )
