"""``spec_of`` beyond chains: walk the graph of a network with an example, unite the axes that it ties, and check.

The example says what shapes the values have; what is proved comes from the rules of ``_trace_graph_rules``. At the
end random symmetries move the module's own weights, and its outputs must stay.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from weightspace._random import rand
from weightspace._spec import Init, NetSpec
from weightspace._trace_build import build, verify
from weightspace._trace_graph_rules import CONVS, apply, apply_module
from weightspace._trace_lanes import Lane, Ledger, Segment, Signal
from weightspace._trace_norms import NORMS
from weightspace._trace_rules import Parameter, Refused, refuse

SIZES = (32, 28, 64, 16, 8, 14, 96, 128, 224)
"""Edge lengths that are tried where no example input is given: any that the module takes will do."""
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
_HARMLESS = ("requires_grad_", "detach_", "dropout_", "feature_dropout_", "alpha_dropout_")
"""Methods that write no numbers, or none in evaluation mode."""


@contextmanager
def progress(count: list[int]) -> Iterator[None]:
    """Note on a refusal how many operators were read before it."""
    try:
        yield
    except Refused as refusal:
        refusal.read = count[0]
        raise


def spec_of_graph(module: nn.Module, example: Tensor | None, init: Init) -> NetSpec | None:
    """The spec of a network in evaluation mode; ``None`` where it has nothing that a sequential chain has not.

    Raises:
        Refused: naming what cannot be proved.
    """
    count = [0]
    no_chain = any(isinstance(child, (*CONVS, *NORMS)) for child in module.modules())
    ledger = Ledger({}, beyond_chain=no_chain)
    try:
        with progress(count):
            return _read(module, example, init, ledger, count)
    except Refused as refusal:
        refusal.read = 2**20 if no_chain else refusal.read if ledger.beyond_chain else 0
        raise


def _read(module: nn.Module, example: Tensor | None, init: Init, ledger: Ledger, count: list[int]) -> NetSpec | None:
    _check_norms(module)
    module, graph = trace(module, evaluation=True)
    example = _example(module, example)
    shapes = _record(module, graph, example)
    ledger.shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    source, output = _walk(graph, module, shapes, ledger, count)
    if not ledger.beyond_chain:
        return None
    spec = build(ledger, module, source, output, init)
    verify(module, spec, example)
    return spec


def trace(module: nn.Module, *, evaluation: bool = False) -> tuple[nn.Module, fx.Graph]:
    """A float64 copy of the module and its graph."""
    kind = type(module)
    try:
        module = copy.deepcopy(module).to(device="cpu", dtype=torch.float64)
        module = module.eval() if evaluation else module
        return module, fx.Tracer().trace(module)
    except Exception as error:
        if kind.__module__.startswith("torch.nn.") and not issubclass(kind, _CONTAINERS):
            raise Refused(f"{kind.__name__}, a layer of torch.nn that has no rule as a whole network") from error
        raise Refused(f"torch.fx cannot trace {kind.__name__}: {type(error).__name__}: {error}") from error


def _check_norms(module: nn.Module) -> None:
    """Only running statistics of norms are known, and norms as torch has them."""
    known: set[str] = set()
    for name, child in module.named_modules():
        if type(child) in NORMS:
            known |= {f"{name}.{b}" if name else b for b in ("running_mean", "running_var", "num_batches_tracked")}
        elif isinstance(child, _NormBase):
            refuse(f"{type(child).__name__} ({name!r}), a subclass of a norm of torch.nn; only the norms as they are")
    if buffers := [name for name, _ in module.named_buffers() if name not in known]:
        owners = {type(module.get_submodule(name.rpartition(".")[0])).__name__ for name in buffers}
        refuse(f"buffers {buffers} of {sorted(owners)}; a spec holds parameters and running statistics only")


def refuse_in_place(node: fx.Node, module: nn.Module) -> None:
    """Refuse an operator whose result nothing uses, and that may be there for what it writes."""
    name = str(getattr(node.target, "__name__", node.target))
    writes = node.op.startswith("call") and name.endswith("_") and not name.endswith("__") and name not in _HARMLESS
    child = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if child is not None:
        writes = getattr(child, "inplace", False) and not isinstance(child, _DropoutNd)
    elif node.kwargs.get("inplace") or node.kwargs.get("out") is not None:
        writes = True
    if writes:
        label = label_of(node) if child is None else f"{type(child).__name__} ({node.target!r})"
        refuse(f"{label} in place, as a statement: what it writes is not followed; use its result, x = f(x)")


def _example(module: nn.Module, given: Tensor | None) -> Tensor:
    """Return the example that was given, or the first shape that the module takes."""
    if given is not None:
        example = given.detach().to(device="cpu", dtype=torch.float64)
        if error := _fails(module, example):
            raise Refused(f"the module fails on the example input {list(given.shape)}: {error}") from error
        return example
    generator = torch.Generator().manual_seed(0)
    for shape in _shapes(module):
        example = 2 * rand(shape, generator=generator, dtype=torch.float64) - 1
        if not _fails(module, example):
            return example
    refuse("no shape was found that the module takes; pass example_input")


def _shapes(module: nn.Module) -> list[tuple[int, ...]]:
    firsts = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)][:3]
    found: list[tuple[int, ...]] = []
    for first in firsts:
        if isinstance(first, nn.Linear):
            found.append((2, first.in_features))
        else:
            dims = len(first.kernel_size)
            found += [(2, first.in_channels, *[size] * dims) for size in (SIZES if dims < 3 else (16, 32))]
    return list(dict.fromkeys(found))


def _fails(module: nn.Module, example: Tensor) -> Exception | None:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module(example)
    except Exception as error:
        return error
    return None


class _Recorder(fx.Interpreter):
    """Runs the graph and notes what came out of every node: shapes of tensors, other values as they are."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(fx.GraphModule(module, graph))
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        self.found[n] = ("tensor", tuple(out.shape)) if isinstance(out, Tensor) else ("other", out)
        return out


def _record(module: nn.Module, graph: fx.Graph, example: Tensor) -> dict[fx.Node, Any]:
    if sum(node.op == "placeholder" for node in graph.nodes) != 1:
        names = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
        refuse(f"{len(names)} inputs {names}; expected one tensor")
    recorder = _Recorder(module, graph)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        recorder.run(example)
    return recorder.found


def _walk(
    graph: fx.Graph, module: nn.Module, shapes: dict[fx.Node, Any], ledger: Ledger, count: list[int]
) -> tuple[Signal, Signal]:
    """Run the live part of the graph on :class:`Signal` in place of tensors; the input and the output."""
    live: set[fx.Node] = {node for node in graph.nodes if node.op == "output"}
    for node in reversed(graph.nodes):
        if node in live:
            live.update(node.all_input_nodes)
    parameters, values = dict(module.named_parameters()), {}
    source: Signal | None = None
    for number, node in enumerate(graph.nodes):
        count[0] = number
        if node.op == "placeholder":
            source = values[node] = _input(shapes[node][1])
        if node not in live:
            refuse_in_place(node, module)
        if node not in live or node.op == "placeholder":
            continue
        args, kwargs = map_arg((node.args, dict(node.kwargs)), values.__getitem__)
        if node.op == "output":
            if not isinstance(args[0], Signal) or source is None:
                refuse(f"an output of type {type(args[0]).__name__}; expected one tensor")
            return source, args[0]
        if shapes[node][0] == "other":
            values[node] = _constant(node, values, shapes[node][1])
            continue
        values[node] = _step(node, module, parameters, shapes[node][1], ledger, args, kwargs)
    refuse("no output")


def _constant(node: fx.Node, values: dict[fx.Node, Any], found: Any) -> Any:
    """Compute a value that is no tensor: sizes, and numbers made of sizes. Anything else could depend on the data."""
    reads = [before.name for before in node.all_input_nodes if isinstance(values[before], Signal | Parameter)]
    sizes = node.target in ("size", "dim") or (node.target is getattr and node.args[1] in ("shape", "ndim"))
    if reads and not sizes:
        refuse(f"{label_of(node)} of {reads[0]!r}, which returns no tensor")
    return found


def _step(
    node: fx.Node, module: nn.Module, parameters: dict[str, Any], shape: Any, ledger: Ledger, args: Any, kwargs: Any
) -> Any:
    if node.op == "get_attr":
        if node.target not in parameters:
            refuse(f"tensor constant or buffer {node.target!r}; hold constants as Python numbers")
        return Parameter(str(node.target))
    if node.op == "call_module":
        child = module.get_submodule(str(node.target))
        return apply_module(ledger, shape, child, str(node.target), args, kwargs)
    return apply(ledger, shape, node.target, label_of(node), args, kwargs)


def label_of(node: fx.Node) -> str:
    """The operator's name, for messages."""
    if node.op == "call_method":
        return f"torch.Tensor.{node.target}"
    home = getattr(node.target, "__module__", None) or "torch"
    return f"{home.removeprefix('_')}.{getattr(node.target, '__name__', node.target)}"


def _input(shape: tuple[int, ...]) -> Signal:
    if len(shape) < 2:
        refuse(f"an example input of shape {list(shape)}; expected [batch, channel, ...] or [batch, feature]")
    return Signal(shape, 1, (Segment(Lane(shape[1], fixed="in")),), "active")
