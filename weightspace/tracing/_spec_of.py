"""``spec_of``: read the spec of a network off an ``nn.Module``, or say which operator stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from weightspace._spec import INITS, Init, NetSpec
from weightspace.tracing._axes import Affine, Refused, TracedParam, freeze, resolved
from weightspace.tracing._build import build
from weightspace.tracing._graph import OnUnknown, Walk
from weightspace.tracing._module import export, network, with_example
from weightspace.tracing._verify import check_chain, is_chain, verify

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
    r"""Read the spec of a network off a module: its parameters, and which axes are tied to one another.

    DOC
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected an nn.Module, got {type(module).__name__}")
    if init not in INITS:
        raise ValueError(f"unknown init: expected one of {list(INITS)}, got {init!r}")
    if on_unknown not in ("refuse", "freeze"):
        raise ValueError(f"on_unknown: expected 'refuse' or 'freeze', got {on_unknown!r}")
    if isinstance(ignore, str):
        raise TypeError(f"ignore: expected a sequence of patterns, got {ignore!r}; put it in a tuple")
    args, kwargs = _example(example_input)
    patterns = tuple(ignore)
    try:
        return _read(module, args, kwargs, init, on_unknown, lambda key: _matches(key, patterns), output)
    except Refused as refusal:
        raise ValueError(f"cannot prove symmetric: {refusal}") from refusal.__cause__


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _example(example: Example | None) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Return the example's positional and named tensors."""
    named = dict(example) if isinstance(example, Mapping) else {}
    several = isinstance(example, list | tuple) and all(isinstance(value, Tensor) for value in example)
    args: tuple = tuple(example) if several else () if named or example is None else (example,)  # type: ignore
    for name, value in [("example_input", x) for x in args] + [(f"example_input[{k!r}]", x) for k, x in named.items()]:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
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
    ignored: Callable[[str], bool],
    output: str | int | None,
) -> NetSpec:
    for name, parameter in module.named_parameters():
        if isinstance(parameter, UninitializedParameter) or not parameter.is_floating_point():
            raise Refused(f"parameter {name!r} of type {type(parameter).__name__}; expected initialised real numbers")
    net = with_example(network(module, output), args, kwargs)
    walk = Walk(net.keys, on_unknown, ignored)
    out = walk.run(export(net))
    params, order = _held(module, walk)
    spec = build(params, order, walk.inputs[0], out, init)
    chain, state = is_chain(spec), out.state
    if not spec.hidden and not chain and on_unknown == "refuse":
        reasons = [s.axis.reason for param in params if len(param.dims) > 1 for s in resolved(param.dims[0])]
        found = [reason for reason in dict.fromkeys(reasons) if reason and reason != "the output"]
        why = f": {'; '.join(found[:3])} leaves no symmetry" if found else ""
        raise Refused(f"a network without a hidden axis{why}")
    if chain and isinstance(state, Affine) and state.factor == state.power == 1:
        spec = replace(spec, output_shift=state.shift)
        if walk.exact:
            check_chain(net, spec)
    if spec.hidden:
        verify(net, spec, rounds=walk.rounds)
    return spec


def _held(module: nn.Module, walk: Walk) -> tuple[list[TracedParam], list[str]]:
    """Return the parameters that the spec holds, and their keys in the order of the state dict."""
    state = module.state_dict(keep_vars=True)
    order = [key for key, value in state.items() if value.is_floating_point() and not walk.ignored(key)]
    params = [param for param in walk.params.values() if param.uses]
    used = {key for param in params for key in param.keys}
    unused = [key for key in order if key not in used]
    if unused and walk.on_unknown == "refuse":
        raise Refused(
            f"parameters {unused} that the output does not depend on; remove them, or leave them out of the spec with "
            f"ignore={tuple(unused[:3])!r}"
        )
    if flat := [key for key in order if not state[key].ndim]:
        raise Refused(
            f"parameter {flat[0]!r} without axes, which a spec cannot hold; give it shape [1], or leave it out of the "
            f"spec with ignore=({flat[0]!r},)"
        )
    spare = [TracedParam([key], tuple(state[key].shape)) for key in unused]
    for layout in [layout for param in spare for layout in param.dims]:
        freeze(layout, "the output does not depend on it")
    return [*params, *spare], order
