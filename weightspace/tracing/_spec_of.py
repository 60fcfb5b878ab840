"""``spec_of``: read the spec of a network off an ``nn.Module``, or say which operator stands in the way."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from weightspace._random import rand
from weightspace._spec import INITS, Init, NetSpec
from weightspace.tracing._axes import Affine, Refused, TracedParam, freeze, resolved
from weightspace.tracing._build import build
from weightspace.tracing._graph import Network, OnUnknown, Walk, export, network
from weightspace.tracing._verify import check_chain, is_chain, verify

SIZES = (32, 28, 64, 16, 8, 14, 96, 128, 224)
"""Edge lengths that are tried where no example input is given: any that the module takes will do."""
Example = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


def spec_of(
    module: nn.Module,
    example_input: Example | None = None,
    *,
    init: Init = "torch",
    on_unknown: OnUnknown = "refuse",
    ignore: Sequence[str] = (),
    output: str | int | None = None,
) -> NetSpec:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected an nn.Module, got {type(module).__name__}")
    if init not in INITS:
        raise ValueError(f"unknown init: expected one of {list(INITS)}, got {init!r}")
    if on_unknown not in ("refuse", "freeze"):
        raise ValueError(f"on_unknown: expected 'refuse' or 'freeze', got {on_unknown!r}")
    if isinstance(ignore, str):
        raise TypeError(f"ignore: expected a sequence of patterns, got {ignore!r}; put it in a tuple")
    args, kwargs = _inputs(example_input)
    try:
        return _read(module, args, kwargs, init, on_unknown, ignore, output)
    except Refused as refusal:
        raise ValueError(f"cannot prove symmetric: {refusal}") from refusal.__cause__


def _inputs(example: Example | None) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Return the example's positional and named tensors."""
    named = dict(example) if isinstance(example, Mapping) else {}
    args = tuple(example) if isinstance(example, list | tuple) else () if named or example is None else (example,)
    given = [("example_input", value) for value in args] + [(f"example_input[{k!r}]", v) for k, v in named.items()]
    for name, value in given:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: expected a tensor, got {type(example if name == 'example_input' else value).__name__}"
            )
        if not value.numel():
            raise ValueError(
                f"{name}: expected at least one input, got shape {list(value.shape)}; "
                "pass a batch of one, such as torch.zeros(1, ...)"
            )
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; torch.zeros of its shape will do")
    return args, named


def _read(
    module: nn.Module,
    args: tuple[Tensor, ...],
    kwargs: dict[str, Tensor],
    init: Init,
    on_unknown: OnUnknown,
    ignore: Sequence[str],
    output: str | int | None,
) -> NetSpec:
    _check_tensors(module)
    patterns = tuple(re.compile(fnmatch.translate(pattern)) for pattern in ignore)
    net = _with_example(network(module, output), args, kwargs)
    walk = Walk(net, on_unknown, patterns)
    out = walk.run(_program(net))
    params, order = _held(module, walk, patterns)
    spec = build(params, order, walk.inputs[0], out, init)
    chain, state = is_chain(spec), out.state
    if not spec.hidden and not chain and on_unknown == "refuse":
        raise Refused(_no_hidden_axis(params))
    if chain and isinstance(state, Affine) and state.factor == state.power == 1:
        spec = replace(spec, output_shift=state.shift)
        if walk.exact:
            check_chain(net, spec)
    if spec.hidden:
        verify(net, spec, rounds=walk.rounds)
    return spec


def _check_tensors(module: nn.Module) -> None:
    """Refuse lazy and complex parameters, which a spec cannot hold."""
    for name, parameter in module.named_parameters():
        if isinstance(parameter, UninitializedParameter) or not parameter.is_floating_point():
            raise Refused(f"parameter {name!r} of type {type(parameter).__name__}; expected initialised real numbers")


def _program(net: Network) -> torch.export.ExportedProgram:
    """Trace the network, unless the module itself fails on the example."""
    try:
        return export(net)
    except Refused:
        if error := _fails(net):
            shapes = [list(value.shape) for value in (*net.args, *net.kwargs.values())]
            shown = shapes[0] if len(shapes) == 1 else shapes
            raise Refused(f"the module fails on the example input {shown}: {error}") from error
        raise


def _with_example(net: Network, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Network:
    """Set what was given in the network's precision, or the first shape that the module takes."""
    dtype = next((value.dtype for value in net.module.parameters()), torch.float32)

    def own(value: Tensor) -> Tensor:
        value = value.detach().to("cpu")
        return value.to(dtype) if value.is_floating_point() else value

    if args or kwargs:
        return replace(net, args=tuple(map(own, args)), kwargs={name: own(value) for name, value in kwargs.items()})
    error: Any = "it has no layer of torch.nn and no matrix to tell one"
    for example in _examples(net.module, dtype):
        tried = replace(net, args=(example,))
        error = _fails(tried)
        if error is None:
            return tried
    raise Refused(f"no shape was found that the module takes; pass example_input ({error})")


def _examples(module: nn.Module, dtype: torch.dtype) -> Iterator[Tensor]:
    """Make inputs of the sizes that the first layers read."""
    generator = torch.Generator().manual_seed(0)
    layers = nn.Embedding | nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    for first in [child for child in module.modules() if isinstance(child, layers)][:3]:
        if isinstance(first, nn.Embedding):
            yield torch.arange(2 * 4).view(2, 4) % first.num_embeddings
        elif isinstance(first, nn.Linear):
            yield 2 * rand((2, first.in_features), generator=generator, dtype=dtype) - 1
        else:
            dims = len(first.kernel_size)
            for size in SIZES if dims < 3 else (16, 32):
                yield 2 * rand((2, first.in_channels, *[size] * dims), generator=generator, dtype=dtype) - 1
    for first in [value for value in module.parameters() if value.ndim == 2][:1]:
        yield 2 * rand((2, first.shape[1]), generator=generator, dtype=dtype) - 1


def _fails(net: Network) -> Exception | None:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            net.module(*net.args, **net.kwargs)
    except Exception as error:
        return error
    return None


def _held(module: nn.Module, walk: Walk, ignore: Sequence[re.Pattern[str]]) -> tuple[list[TracedParam], list[str]]:
    """Return the parameters that the spec holds, and their keys in the order of the state dict."""
    state = {
        key: value
        for key, value in module.state_dict(keep_vars=True).items()
        if value.is_floating_point() and not any(pattern.fullmatch(key) for pattern in ignore)
    }
    params = [param for param in walk.params if param.uses]
    used = {key for param in params for key in param.keys}
    unused = [key for key in state if key not in used]
    if unused and walk.on_unknown == "refuse":
        raise Refused(
            f"parameters {unused} that the output does not depend on; remove them, or leave them out of the spec with "
            f"ignore={tuple(unused[:3])!r}"
        )
    if flat := [key for key in state if not state[key].ndim]:
        raise Refused(
            f"parameter {flat[0]!r} without axes, which a spec cannot hold; give it shape [1], or leave it out of the "
            f"spec with ignore=({flat[0]!r},)"
        )
    spare = [TracedParam([key], tuple(state[key].shape)) for key in unused]
    for param in spare:
        for layout in param.dims:
            freeze(layout, "the output does not depend on it")
    return [*params, *spare], list(state)


def _no_hidden_axis(params: Sequence[TracedParam]) -> str:
    """Say what left no symmetry."""
    reasons = [s.axis.reason for param in params if param.as_weight for s in resolved(param.dims[0])]
    found = [reason for reason in dict.fromkeys(reasons) if reason and reason != "the output"]
    why = f": {'; '.join(found[:3])} leaves no symmetry" if found else ""
    return f"a network without a hidden axis{why}"
