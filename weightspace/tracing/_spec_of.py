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

    The module is traced by ``torch.export`` into a graph of ATen operators. One rule for each operator says which axes
    it ties together and what it leaves of their symmetry. A sequential network

    .. math:: x \mapsto W_L a_{L-1}(... a_1(W_1 x + b_1) ...) + b_L + shift

    keeps the whole group of its activations, and :func:`weightspace.evaluate` computes what the module does. Any other
    network, in evaluation mode, gets a group that is proved, not the largest there is:

    - An axis between a linear layer or convolution and the next, with one activation and maybe pooling, reshapes or
      concatenation in between, keeps its activation's group; maximum pooling takes signs and phases away.
    - An axis between two linear maps with nothing in between has every matrix (activation ``"linear"``); so has the
      inside of each head of attention, between queries and keys and between values and output. Heads are blocks, which
      move as wholes.
    - An axis that a sum, a norm, a product, a softmax, a depthwise or transposed convolution, or an activation outside
      the table acts on has permutations alone (activation ``"other"``). What is added or multiplied shares one
      permutation. Scales and running statistics of norms (kind ``"norm"``) are permuted with their axis.
    - An axis that is read in its order has no symmetry: the inside of heads with rotary embeddings, groups of a norm or
      convolution, the hidden state of a recurrent layer, channels that are cut out one by one.

    What a network of more outputs, constants or buffers computes around that needs no rule of its own. Parametrised
    layers (weight norm, spectral norm, low-rank adapters) are read on their own parameters, tied ones as each of their
    keys. A square matrix that reads and makes one axis, as in a residual sum around one layer, leaves it without
    symmetry. At the end the result is compared with the module: outputs of a chain, and elsewhere that random
    symmetries leave them. Works on a copy that shares the module's tensors: the module, its mode and the global random
    state stay as they are.

    Args:
        module: any network; wrappers of ``torch.compile`` and ``nn.DataParallel`` keep their keys.
        example_input: what the module takes, usually ``[batch, channel, ...]`` or ``[batch, feature]``: one tensor,
            several in a tuple, or named ones in a mapping. Only shapes and whole numbers count. Without it, usual sizes
            are tried until one fits.
        init: the initialisation to record, which a module does not tell; see :func:`weightspace.siren`.
        on_unknown: with ``"freeze"`` an operator without a rule leaves no symmetry on the axes around it, and
            parameters that the output does not depend on have none; with ``"refuse"`` both are an error.
        ignore: patterns (``"fc.*"``) of state dict keys to leave out of the spec. Their tensors count as constants.
        output: which entry of a tuple, mapping or data class is the output; by default its first tensor.

    Returns:
        A spec whose parameters are the tensors of real numbers in ``module.state_dict()``, in that order: by name, with
        linear layers after a flatten unfolded, ``("out", "h2", "pos49")``, and what reads a concatenation or makes
        several axes (packed queries, keys and values) cut into ``"name[0]"``, ...

    Raises:
        TypeError: if ``module`` is not an ``nn.Module``, an example no tensor, or ``ignore`` a single string.
        ValueError: for an example that is empty or not finite, a module that ``torch.export`` cannot trace, and for
            what cannot be proved, naming the operator, its module and its line of source.

    Example:
        >>> import torch
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
        >>> encoder = torch.nn.TransformerEncoderLayer(8, 2, 16)
        >>> spec = ws.spec_of(encoder, torch.zeros(5, 1, 8), ignore=("norm*",))
        >>> [(a.size, a.activation, a.blocks) for a in spec.hidden]
        [(8, 'linear', 2), (8, 'linear', 2), (16, 'relu', 1)]
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
