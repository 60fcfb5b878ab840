"""The walk over a graph of ATen operators, with traced values in place of tensors."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch.export.graph_signature import InputKind
from torch.fx.node import map_aggregate

from weightspace.tracing import _rules_products as _rules_products
from weightspace.tracing._axes import ACTIVE, Refused, Site, TracedParam, TracedTensor, fixed
from weightspace.tracing._chain import monomial
from weightspace.tracing._module import inside, quiet
from weightspace.tracing._rules import EXACT, RULES, arithmetic, cast, dropout, elementwise, identity, tensors
from weightspace.tracing._rules_moves import look, move

OnUnknown = Literal["refuse", "freeze"]
_ROUGH = (torch.float32, torch.float16, torch.bfloat16)
_HARMLESS = ("detach_", "requires_grad_", "dropout_")  # they write no numbers, or none in evaluation mode
LAZY = {move, identity, cast, dropout}
"""The rules that take a view as it is, as a product with a number does."""
_FRESH = ("_like", "::new_", "::zero", "::fill")  # they take a shape alone from the tensor that they are given


@dataclass
class Walk:
    """One pass over a graph with traced values in place of tensors.

    Args:
        keys: for each name of a parameter or buffer, the state dict keys that it has.
        on_unknown: whether an operator without a rule is refused, or all axes around it are fixed.
        ignored: whether a state dict key is left out of the spec, so that its tensor is a constant.

    After :meth:`run`, ``params`` are those that the graph reads and ``inputs`` the example. ``exact`` says whether
    every step was a linear map, an activation of the table or what belongs to them, ``rounds`` whether values are cast
    to single precision or less.
    """

    keys: dict[str, list[str]]
    on_unknown: OnUnknown
    ignored: Callable[[str], bool]
    params: dict[str, TracedParam] = field(default_factory=dict)
    inputs: list[TracedTensor] = field(default_factory=list)
    exact: bool = True
    rounds: bool = False
    steps: int = 0

    def run(self, program: torch.export.ExportedProgram) -> TracedTensor:
        """Return the traced output."""
        if _writes_views(program):
            with quiet():
                program = program.run_decompositions({})
        given: list[Any] = []
        placeholders = (node for node in program.graph.nodes if node.op == "placeholder")
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
            if spec.kind != InputKind.USER_INPUT:
                name = str(spec.target)
                given.append(self._state(name, program.constants.get(name, program.state_dict.get(name))))
                continue
            given.append(node.meta.get("val"))
            if isinstance(given[-1], Tensor):
                shape = tuple(given[-1].shape)
                dims = tuple(fixed(n, "in" if i else "") for i, n in enumerate(shape))
                given[-1] = TracedTensor(shape, dims, ACTIVE)
                self.inputs.append(given[-1])
        (out,) = self._graph(program.graph_module, given)
        if not isinstance(out, TracedTensor):
            raise Refused("an output that does not depend on the input and the parameters")
        return look(out)

    def _state(self, name: str, value: Any) -> Any:
        """A parameter, or a buffer of real numbers that the state dict holds; anything else is a constant."""
        keys = self.keys.get(name, [])
        if not keys or not value.is_floating_point():
            return value
        if self.ignored(keys[0]):
            return TracedTensor(tuple(value.shape), tuple(fixed(n) for n in value.shape))
        param = self.params.setdefault(keys[0], TracedParam(keys, tuple(value.shape)))
        return TracedTensor(param.shape, param.dims, None, param, tuple(range(value.ndim)))

    def _graph(self, module: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        varying = _varying(module.graph, [isinstance(value, TracedTensor) for value in inputs])
        live: set[fx.Node] = set()
        for node in reversed(module.graph.nodes):
            if node.op == "output" or node in live or (_writes(node) and node not in varying):
                live.update([node, *node.all_input_nodes])
        values: dict[fx.Node, Any] = {}
        given = iter(inputs)
        for node in module.graph.nodes:
            if node.op == "placeholder":  # a constant that the graph may write into is copied
                value = next(given)
                values[node] = value.clone() if isinstance(value, Tensor) else value
            elif node.op == "get_attr":
                values[node] = getattr(module, str(node.target))
            elif node in live:
                found = map_aggregate(
                    (node.args, dict(node.kwargs)), lambda x: values.get(x, x) if isinstance(x, fx.Node) else x
                )
                if node.op == "output":
                    return found[0][0]
                values[node] = self._step(node, *found)
        raise Refused("a graph without an output")

    def _step(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        target: Any = node.target
        bodies = [i for i, x in enumerate(args) if isinstance(x, fx.GraphModule)]
        if len(bodies) == 1:
            return self._graph(args[bodies[0]], args[bodies[0] + 1 :])
        given: list[TracedTensor] = []
        map_aggregate((args, kwargs), lambda x: given.append(x) if isinstance(x, TracedTensor) else None)
        if _fresh(node):
            args, kwargs = map_aggregate((args, kwargs), lambda x: torch.zeros(x.shape) if x in given else x)
        if _fresh(node) or not given:
            with torch.no_grad():
                return target(*args, **kwargs)
        if target is operator.getitem:
            return args[0][args[1]]
        self.steps += 1
        out = self._apply(_site(node, self.steps), node, args, kwargs)
        for tensor in given:
            if tensor.param is not None and getattr(out, "param", None) is None:
                tensor.param.uses += 1
        return out

    def _apply(self, site: Site, node: fx.Node, args: Any, kwargs: Any) -> Any:
        rule = RULES.get(site.op) or (
            elementwise if _pointwise(node.target) else move if _is_view(node.target) else None
        )
        if rule is None and self.on_unknown == "freeze":
            return site.freeze(*(look(x) for x in tensors((args, kwargs))))
        if rule is None:
            site.refuse(
                'an operator without a rule; write it in other operators, or pass on_unknown="freeze" to leave the '
                "axes around it without symmetry"
            )
        if rule not in LAZY and not (rule is arithmetic and not kwargs and monomial(site.op, *args[:2])):
            seen: Any = lambda x: look(x, heads=True) if isinstance(x, TracedTensor) else x  # noqa: E731
            args, kwargs = map_aggregate((args, kwargs), seen)
        out = rule(site, *args, **kwargs)
        several = isinstance(site.shape, list) and isinstance(out, TracedTensor)
        self.rounds |= any(x in _ROUGH for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype))
        self.exact &= rule in EXACT and (
            getattr(out, "state", None) is not None or getattr(out, "param", None) is not None
        )
        return [out] if several else out


def _op(node: fx.Node) -> str:
    """Return an operator's name, ``"aten::add"``, with a trailing underscore where it writes in place."""
    schema = getattr(node.target, "_schema", None)
    return schema.name if schema is not None else ""


def _pointwise(target: Any) -> bool:
    """Whether torch says that an operator, in any of its forms, acts on each number by itself."""
    packet = getattr(target, "overloadpacket", None)
    return packet is not None and any(torch.Tag.pointwise in getattr(packet, name).tags for name in packet.overloads())


def _fresh(node: fx.Node) -> bool:
    return any(word in _op(node) for word in _FRESH) and "rand" not in _op(node)


def _writes(node: fx.Node) -> bool:
    return _op(node).endswith("_") and not _op(node).endswith(_HARMLESS)


def _varying(graph: fx.Graph, inputs: Sequence[bool]) -> set[fx.Node]:
    """Return the nodes whose numbers depend on the inputs that vary."""
    varying: set[fx.Node] = set()
    given = iter(inputs)
    for node in graph.nodes:
        if (
            next(given)
            if node.op == "placeholder"
            else not _fresh(node) and not varying.isdisjoint(node.all_input_nodes)
        ):
            varying.add(node)
    return varying


def _writes_views(program: torch.export.ExportedProgram) -> bool:
    """Whether an operator writes into a value of the network of which another one is a view."""
    specs = program.graph_signature.input_specs
    constant = [spec.kind == InputKind.CONSTANT_TENSOR or spec.persistent is False for spec in specs]
    writes = [node for node in _varying(program.graph, [not c for c in constant]) if _writes(node)]
    others = [other for node in writes for other in (node.args[0], *node.args[0].users) if other is not node]  # type: ignore
    return any(_is_view(other.target) for other in others)  # type: ignore[union-attr]


def _is_view(target: Any) -> bool:
    """Whether torch says that an operator returns a view of what it is given."""
    arguments = getattr(getattr(target, "_schema", None), "arguments", ())
    return any(argument.alias_info and not argument.alias_info.is_write for argument in arguments)


def _site(node: fx.Node, number: int) -> Site:
    """Return where an operator stands: its module by path, and the line of source outside of torch."""

    def shape(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [shape(part) for part in value]
        if isinstance(value, Tensor) and not all(isinstance(size, int) for size in value.shape):
            raise Refused(f"{name}: a shape that depends on the numbers of the input")
        return tuple(value.shape) if isinstance(value, Tensor) else None

    name = _op(node).replace("::", ".").removesuffix("_") or str(node.target)
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = re.sub(r"^(L\['self'\]\.?)?(module\.?)?", "", str(stack[-1][0]) if stack else "")
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    lines = [f"{os.path.basename(file)}:{line}" for file, line in lines if not inside(file)]
    return Site(name, path, lines[-1] if lines else "", shape(node.meta.get("val")), number, node.target)
