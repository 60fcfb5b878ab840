"""``spec_of``: read the spec of a network off an ``nn.Module``, or say which operator stands in the way.

The module is traced with torch.fx and the live part of its graph walked, first as a sequential chain of linear layers
(here, by the rules of ``_trace_rules``: exact, so that ``evaluate`` can stand in for the module), then as any network
of known operators (``_trace_graph``). Nothing is guessed: an operator without a rule is refused by name, and what
comes out is compared with the module itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from weightspace._evaluate import evaluate
from weightspace._random import rand, randn
from weightspace._spec import Axis, Init, NetSpec, Param
from weightspace._trace_graph import label_of, progress, refuse_in_place, spec_of_graph, trace
from weightspace._trace_rules import Parameter, Refused, Value, apply, apply_module, refuse
from weightspace._weights import Weights


def _walk(graph: fx.Graph, module: nn.Module, count: list[int]) -> Value:
    """Run the live part of the graph on :class:`Value` in place of tensors."""
    live: set[fx.Node] = {node for node in graph.nodes if node.op == "output"}
    for node in reversed(graph.nodes):
        if node in live:
            live.update(node.all_input_nodes)
    parameters, values = dict(module.named_parameters()), {}
    for number, node in enumerate(graph.nodes):
        count[0] = number
        if node not in live:
            refuse_in_place(node, module)
            continue
        args, kwargs = map_arg((node.args, dict(node.kwargs)), values.__getitem__)
        if node.op == "placeholder":
            if Value() in values.values():
                refuse(f"a second input {node.target!r}")
            values[node] = Value()
        elif node.op == "get_attr":
            if node.target not in parameters:
                refuse(f"tensor constant or buffer {node.target!r}; hold constants as Python numbers")
            values[node] = Parameter(str(node.target))
        elif node.op == "call_module":
            values[node] = apply_module(module.get_submodule(str(node.target)), str(node.target), args, kwargs)
        elif node.op == "output":
            return _output(args[0])
        else:
            values[node] = apply(node.target, label_of(node), args, kwargs)
    refuse("no output")


def _output(value: Any) -> Value:
    """The checks on what the network returns."""
    if not isinstance(value, Value):
        refuse(f"an output of type {type(value).__name__}; expected one tensor")
    if not value.layers:
        refuse("a network without a linear layer")
    if not value.linear:
        refuse(f"{value.layers[-1].activation} after the last linear layer; a spec has no activation on the output")
    if not value.factor == value.power == 1.0:
        refuse(f"output {value.factor:g} * z ** {value.power:g}; only a constant added to the output is recorded")
    return value


def _check_tensors(module: nn.Module) -> None:
    """Refuse what a spec cannot hold: shared, lazy or integer parameters, and weights that are computed from others."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear | _ConvNd) and "weight" not in {**child._parameters, **child._buffers}:
            refuse(
                f"{type(child).__name__} ({name!r}), whose weight is computed (weight_norm, spectral_norm or alike); "
                "make it a parameter, with torch.nn.utils.remove_weight_norm or what undoes the other"
            )
    owners: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if isinstance(parameter, UninitializedParameter) or not parameter.is_floating_point():
            refuse(f"parameter {name!r} of type {type(parameter).__name__}; expected initialised real numbers")
        if id(parameter) in owners:
            refuse(f"one parameter shared by {owners[id(parameter)]!r} and {name!r}")
        owners[id(parameter)] = name


def _build(value: Value, module: nn.Module, init: Init) -> NetSpec:
    """The spec of a chain, its parameters in the order of the state_dict."""
    state = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    used = [name for layer in value.layers for name in (layer.weight, layer.bias) if name is not None]
    if twice := sorted({name for name in used if used.count(name) > 1}):
        refuse(f"parameters {twice} used more than once")
    if unused := [name for name in state if name not in used]:
        refuse(f"parameters {unused} that the output does not depend on through linear layers; remove them")
    if unknown := [name for name in used if name not in state]:
        refuse(f"parameters {unknown} that are not in the state_dict {sorted(state)}")
    axes, params = [Axis("in", state[value.layers[0].weight][-1])], []
    for i, layer in enumerate(value.layers, start=1):
        shape, last = state[layer.weight], i == len(value.layers)
        axes.append(Axis("out" if last else f"h{i}", shape[0], layer.activation, layer.omega))
        bias = shape[:1] if layer.bias is None else state[layer.bias]
        if shape[1:] != (axes[-2].size,) or bias != shape[:1]:
            refuse(f"{layer.weight!r} of shape {list(shape)} after {axes[-2].size} features, with a bias {list(bias)}")
        params.append(Param(layer.weight, (axes[-1].name, axes[-2].name)))
        if layer.bias is not None:
            params.append(Param(layer.bias, (axes[-1].name,), "bias"))
    order = list(state)
    params.sort(key=lambda param: order.index(param.name))
    return NetSpec(tuple(axes), tuple(params), output_shift=value.shift, init=init)


@torch.no_grad()
def _verify(module: nn.Module, spec: NetSpec) -> None:
    """Compare ``evaluate`` with the module's own forward pass, its parameters moved a little off their values."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        noise = randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_(parameter.nan_to_num(0.0, 0.0, 0.0) + 0.01 * noise)
    x = 2 * rand((16, spec.in_features), generator=generator, dtype=torch.float64) - 1
    with torch.random.fork_rng(devices=[]):
        try:
            expected = module(x)
        except Exception as error:
            raise Refused(f"the module fails on points {list(x.shape)}: {error}") from error
    found = evaluate(Weights.from_state_dicts([module.state_dict()], spec), x)[0]
    if not isinstance(expected, Tensor) or expected.shape != found.shape:
        refuse(f"the module's output has another shape than {list(found.shape)}")
    difference = float((found - expected).abs().max())
    if not difference <= 1e-6 * max(1.0, float(expected.abs().max())):
        refuse(
            f"the traced network differs from the module by {difference:.3e}; does it have hooks, or operators that "
            "write in place?"
        )


def _chain(module: nn.Module, init: Init) -> NetSpec:
    """The spec of a sequential chain of linear layers."""
    count = [0]
    with progress(count):
        _check_tensors(module)
        if buffers := [name for name, _ in module.named_buffers()]:
            refuse(f"buffers {buffers}; a spec holds parameters only")
        module, graph = trace(module)
        spec = _build(_walk(graph, module, count), module, init)
        _verify(module, spec)
    return spec


def spec_of(module: nn.Module, example_input: Tensor | None = None, *, init: Init = "torch") -> NetSpec:
    r"""Read the spec of a network off a module: its parameters, and which axes are tied to one another.

    The module is traced with torch.fx, and only what can be proved symmetric is accepted. A sequential network

    .. math:: x \mapsto W_L a_{L-1}(... a_1(W_1 x + b_1) ...) + b_L + shift

    keeps the whole group of its activations, and :func:`weightspace.evaluate` computes what the module does. Any other
    network of known operators, in evaluation mode, gets a group that is proved, not the largest there is:

    - An axis between a linear layer or convolution and the next, with one activation and maybe pooling, flatten or
      concatenation in between, keeps its activation's group; maximum pooling takes signs and phases away.
    - An axis that a residual sum, a norm, a depthwise convolution, or an activation outside the table acts on has
      permutations alone (activation ``"other"``). Sums unite axes: what is added shares one permutation. Scales and
      running statistics of norms (kind ``"norm"``) are permuted with their axis.
    - Group norm with one group or with one for each channel. Others, grouped convolutions, products of two values,
      attention and recurrent layers, and reshapes that cut channels are refused.

    At the end the result is compared with the module in float64: outputs of a chain, and elsewhere that random
    symmetries leave them. Works on a copy: the module, its mode and the global random state stay as they are.

    Args:
        module: layers, activations, norms and pooling as modules or functions, nested as you like. As a chain: also a
            Python number times the argument of a sine or cosine, and one added to the output.
        example_input: what the module takes, ``[batch, channel, ...]`` or ``[batch, feature]``; only its shape counts.
            Without it, usual sizes are tried until one fits.
        init: the initialisation to record, which a module does not tell; see :func:`weightspace.siren`.

    Returns:
        A spec whose parameters are those of ``module.state_dict()``, in that order: by name, with linear layers after
        a flatten unfolded, ``("out", "h2", "pos49")``, and what reads a concatenation cut into ``"name[0]"``, ...

    Raises:
        TypeError: if ``module`` is not an ``nn.Module`` or the example no tensor.
        ValueError: for an example that is empty or not finite, and for what cannot be proved, naming the operator in
            the way.

    Example:
        >>> import weightspace as ws
        >>> module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        >>> spec = ws.spec_of(module)
        >>> [p.name for p in spec.params], spec.axis("h1").activation
        (['0.weight', '0.bias', '2.weight', '2.bias'], 'tanh')
        >>> len(ws.Weights.from_state_dicts([module.state_dict()], spec))
        1
        >>> cnn = [torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3)]
        >>> cnn += [torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(24, 10)]
        >>> spec = ws.spec_of(torch.nn.Sequential(*cnn), torch.zeros(1, 1, 8, 8))
        >>> [(a.name, a.size, a.activation) for a in spec.hidden], spec.param("7.weight").axes
        ([('h1', 4, 'other'), ('h2', 6, 'relu')], ('out', 'h2', 'pos4'))
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected an nn.Module, got {type(module).__name__}")
    if example_input is not None and not isinstance(example_input, Tensor):
        raise TypeError(f"example_input: expected a tensor, got {type(example_input).__name__}")
    if example_input is not None and not example_input.numel():
        raise ValueError(
            f"example_input: expected at least one input, got shape {list(example_input.shape)}; "
            "pass a batch of one, such as torch.zeros(1, ...)"
        )
    if example_input is not None and not bool(example_input.isfinite().all()):
        raise ValueError(
            "example_input: expected finite numbers, got NaN or infinity; torch.zeros of its shape will do"
        )
    try:
        return _chain(module, init)
    except Refused as refusal:
        first = refusal
    try:
        _check_tensors(module)
        if (spec := spec_of_graph(module, example_input, init)) is not None:
            return spec
    except Refused as refusal:
        first = refusal if refusal.read > first.read else first
    raise ValueError(
        f"cannot prove symmetric: {first}; expected a sequential MLP or SIREN, or a network of convolutions, norms, "
        "sums, concatenations and pooling"
    ) from first.__cause__
