"""A module as a graph of ATen operators, and the walk over it that applies the rules."""

from __future__ import annotations

import copy
import dataclasses
import io
import logging
import operator
import os
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.fx.node import map_aggregate

from weightspace.tracing import _rules_attention as _rules_attention
from weightspace.tracing._axes import ACTIVE, Refused, Site, TracedParam, TracedTensor, fixed
from weightspace.tracing._rules import EXACT, RULES, elementwise, tensors

OnUnknown = Literal["refuse", "freeze"]
_TORCH = os.path.dirname(torch.__file__)
_ROUGH = (torch.float32, torch.float16, torch.bfloat16)
_LIKE = ("_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")


class Chosen(nn.Module):
    """A network whose forward pass returns one tensor of what the module returns."""

    def __init__(self, module: nn.Module, output: str | int | None) -> None:
        super().__init__()
        self.module, self.output = module, output

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        found = self.module(*args, **kwargs)
        if self.output is not None:
            found = _entry(found, self.output)
        for value in _leaves(found):
            return value
        raise Refused(
            f"an output of type {type(found).__name__}; expected one tensor, or several in a tuple or mapping"
        )


def _entry(value: Any, key: str | int) -> Any:
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        if isinstance(key, str) and hasattr(value, key):
            return getattr(value, key)
    raise Refused(f"output={key!r}: the module returns {type(value).__name__} without such an entry")


def _leaves(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    elif dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            yield from _leaves(getattr(value, part.name))


@dataclass(frozen=True)
class Network:
    """A copy of a module in evaluation mode, its tensors shared with the module where they are numbers on the host.

    Args:
        module: the copy, which returns one tensor.
        keys: for each name of a parameter or buffer of the copy, the state dict keys of the tensor, several if tied.
        args: the example's positional inputs.
        kwargs: the example's named inputs.
    """

    module: nn.Module
    keys: dict[str, list[str]]
    args: tuple[Tensor, ...] = ()
    kwargs: dict[str, Tensor] = field(default_factory=dict)


def network(module: nn.Module, output: str | int | None) -> Network:
    """Copy a module without copying its tensors."""
    memo: dict[int, Any] = {}
    owners: dict[int, list[str]] = {}
    tensors = [value for child in module.modules() for value in vars(child).values() if isinstance(value, Tensor)]
    state = module.state_dict(keep_vars=True)
    for value in [*module.parameters(), *module.buffers(), *tensors]:
        memo[id(value)] = _hosted(value)
    for key, value in state.items():
        owners.setdefault(id(memo.get(id(value), value)), []).append(key)
    try:
        own = Chosen(copy.deepcopy(module, memo), output).eval()
    except Exception as error:
        raise Refused(f"{type(module).__name__} cannot be copied: {type(error).__name__}: {error}") from error
    named = [*own.named_parameters(remove_duplicate=False), *own.named_buffers(remove_duplicate=False)]
    return Network(own, {name: owners.get(id(value), []) for name, value in named})


def _hosted(value: Tensor) -> Tensor:
    """Return the tensor itself, or numbers of single precision on the host for what is elsewhere or in less."""
    exact = value.dtype in (torch.float32, torch.float64) or not value.is_floating_point()
    if exact and value.device.type == "cpu" and value.layout == torch.strided:
        return value if isinstance(value, nn.Parameter) or value.is_leaf else value.detach()
    data = torch.zeros(value.shape) if value.is_meta else value.detach().to_dense().to("cpu")
    data = data if exact and not value.is_meta else data.float()
    return nn.Parameter(data) if isinstance(value, nn.Parameter) else data


def export(net: Network) -> torch.export.ExportedProgram:
    """Trace the network into a graph of ATen operators, without statements that write into views."""
    kind = type(net.module.module).__name__
    try:
        with _quiet():
            program = torch.export.export(net.module, net.args, net.kwargs, strict=False)
            return program.run_decompositions({}) if _writes_views(program.graph) else program
    except Refused:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not _inside(f.filename)]
        at = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}, {frames[-1].line!r}" if frames else ""
        text = str(error).strip().split("\n")[0]
        hint = (
            "; a branch on numbers cannot be traced: use torch.where" if "DataDependent" in type(error).__name__ else ""
        )
        raise Refused(f"torch.export cannot trace {kind}{at}: {type(error).__name__}: {text}{hint}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings and the log of torch's tracer from the user, who gets one message."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _inside(path: str) -> bool:
    return path.startswith((_TORCH, os.path.dirname(__file__))) or path.startswith("<")


def _writes_views(graph: fx.Graph) -> bool:
    """Whether an operator writes into a tensor of which another one is a view."""
    writes = [node for node in graph.nodes if _op(node).endswith("_") and _op(node) != "aten::detach_"]
    return any(_is_view(other) for node in writes for other in (node.args[0], *node.args[0].users) if other is not node)


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(a.alias_info and not a.alias_info.is_write for a in schema.arguments)


def _op(node: fx.Node) -> str:
    """The operator's name, ``"aten::add"``, with a trailing underscore where it writes in place."""
    schema = getattr(node.target, "_schema", None)
    return schema.name if schema is not None else ""


def _pointwise(target: Any) -> bool:
    """Whether torch says that an operator, in any of its forms, acts on each number by itself."""
    packet = getattr(target, "overloadpacket", None)
    return packet is not None and any(torch.Tag.pointwise in getattr(packet, name).tags for name in packet.overloads())


@dataclass
class Walk:
    """One pass over a graph with traced values in place of tensors.

    Args:
        net: the network.
        on_unknown: whether an operator without a rule is refused, or all axes around it are fixed.
        ignore: patterns of state dict keys that are constants.

    After :meth:`run`, ``params`` are those that the graph has, ``inputs`` the example, and ``exact`` says whether
    every step was a linear map, an activation of the table or what belongs to them. ``rounds`` says whether values are
    cast to single precision or less.
    """

    net: Network
    on_unknown: OnUnknown = "refuse"
    ignore: tuple[re.Pattern[str], ...] = ()
    params: list[TracedParam] = field(default_factory=list)
    inputs: list[TracedTensor] = field(default_factory=list)
    exact: bool = True
    rounds: bool = False

    def run(self, program: torch.export.ExportedProgram) -> TracedTensor:
        """Return the traced output; parameters met on the way are in ``params``."""
        given: list[Any] = []
        found: dict[str, TracedTensor] = {}
        placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
            if spec.kind == InputKind.USER_INPUT:
                given.append(self._input(node))
                self.inputs += [given[-1]] if isinstance(given[-1], TracedTensor) else []
            else:
                given.append(self._state(program, str(spec.target), found))
        (out,) = self._graph(program.graph_module, given)
        if not isinstance(out, TracedTensor):
            raise Refused("an output that does not depend on the input and the parameters")
        return out

    @staticmethod
    def _input(node: fx.Node) -> Any:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return value
        shape = tuple(value.shape)
        return TracedTensor(shape, tuple(fixed(n, "in") for n in shape), ACTIVE)

    def _state(self, program: torch.export.ExportedProgram, name: str, found: dict[str, TracedTensor]) -> Any:
        """A parameter, or a buffer of real numbers that the state dict holds; anything else is a constant."""
        value = program.constants[name] if name in program.constants else program.state_dict[name]
        keys = self.net.keys.get(name, [])
        if not keys or not value.is_floating_point() or any(p.fullmatch(keys[0]) for p in self.ignore):
            if keys and value.is_floating_point():
                return TracedTensor(tuple(value.shape), tuple(fixed(n) for n in value.shape))
            return value
        if keys[0] not in found:
            param = TracedParam(keys, tuple(value.shape))
            self.params.append(param)
            order = tuple(range(value.ndim))
            found[keys[0]] = TracedTensor(param.shape, param.dims, None, param, order)
        return found[keys[0]]

    def _graph(self, module: fx.GraphModule, inputs: list[Any]) -> Any:
        live: set[fx.Node] = set()
        for node in reversed(module.graph.nodes):
            if node.op == "output" or node in live:
                live.update([node, *node.all_input_nodes])
        values: dict[fx.Node, Any] = {}
        given = iter(inputs)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
                continue
            if node not in live:
                continue
            args, kwargs = map_aggregate(
                (node.args, dict(node.kwargs)), lambda x: values[x] if isinstance(x, fx.Node) else x
            )
            if node.op == "output":
                return args[0]
            if node.op == "get_attr":
                values[node] = getattr(module, str(node.target))
                continue
            values[node] = self._step(node, args, kwargs)
        raise Refused("a graph without an output")

    def _step(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        bodies = [x for x in args if isinstance(x, fx.GraphModule)]
        if len(bodies) == 1:
            return self._graph(bodies[0], list(args[args.index(bodies[0]) + 1 :]))
        target: Any = node.target
        site = _site(node)
        given = tensors_of(args, kwargs)
        name = _op(node)
        if not given:
            return _constant(target, args, kwargs)
        for tensor in given:
            if tensor.param is not None:
                tensor.param.uses += 1
        if target is operator.getitem:
            return args[0][args[1]]
        if any(word in name for word in _LIKE) and "rand" not in name:
            return _constant(target, *map_aggregate((args, kwargs), _zeros))
        out = self._apply(site, target, args, kwargs)
        known = getattr(out, "state", None) is not None or getattr(out, "param", None) is not None
        self.rounds |= any(x in _ROUGH for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype))
        self.exact &= known and RULES.get(site.op, elementwise) in EXACT
        return out

    def _apply(self, site: Site, target: Any, args: Any, kwargs: Any) -> Any:
        if site.op in RULES:
            return RULES[site.op](site, *args, **kwargs)
        if _pointwise(target):
            return elementwise(site, *args, **kwargs)
        if self.on_unknown == "freeze":
            return site.freeze(*tensors((args, kwargs)))
        site.refuse(
            'an operator without a rule; write it in other operators, or pass on_unknown="freeze" to leave the axes '
            "around it without symmetry"
        )


def tensors_of(args: Any, kwargs: Any) -> list[TracedTensor]:
    """Return the traced values among arguments."""
    found: list[TracedTensor] = []
    map_aggregate((args, kwargs), lambda x: found.append(x) if isinstance(x, TracedTensor) else None)
    return found


def _zeros(value: Any) -> Any:
    return torch.zeros(value.shape) if isinstance(value, TracedTensor) else value


def _constant(target: Any, args: Any, kwargs: Any) -> Any:
    """Compute what depends on no parameter and no input; what writes in place writes into a copy."""
    if getattr(target, "_schema", None) is not None and target._schema.name.endswith("_") and args:
        args = (args[0].clone() if isinstance(args[0], Tensor) else args[0], *args[1:])
    with torch.no_grad():
        return target(*args, **kwargs)


def _shape(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_shape(part) for part in value]
    if not isinstance(value, Tensor):
        return None
    if not all(isinstance(size, int) for size in value.shape):
        raise Refused("a shape that depends on the numbers of the input")
    return tuple(value.shape)


def _site(node: fx.Node) -> Site:
    """Where an operator stands: its module by path, and the line of source outside of torch."""
    name = _op(node).replace("::", ".").removesuffix("_")
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = str(stack[-1][0]) if stack else ""
    path = re.sub(r"^(L\['self'\]\.?)?(module\.?)?", "", path)
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    lines = [(file, number) for file, number in lines if not _inside(file)]
    line = f"{os.path.basename(lines[-1][0])}:{lines[-1][1]}" if lines else ""
    return Site(name or str(node.target), path, line, _shape(node.meta.get("val")))
