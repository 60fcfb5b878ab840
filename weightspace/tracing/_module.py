"""A module as a network to trace: a copy in evaluation mode that returns one tensor, with an example input."""

from __future__ import annotations

import copy
import dataclasses
import io
import logging
import os
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from weightspace._random import rand
from weightspace.tracing._axes import Refused

SIZES = (32, 28, 64, 16, 8, 14, 96, 128, 224)
"""Edge lengths that are tried where no example input is given: any that the module takes will do."""
_HERE, _TORCH = (os.path.dirname(file) for file in (__file__, str(torch.__file__)))


class Chosen(nn.Module):
    """A network whose forward pass returns one tensor of what the module returns."""

    def __init__(self, module: nn.Module, output: str | int | None) -> None:
        super().__init__()
        self.module, self.output = module, output

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        found = self.module(*args, **kwargs)
        kind, held = type(found).__name__, vars(found) if dataclasses.is_dataclass(found) else found
        if self.output is not None:
            try:
                held = cast(Any, held)[self.output]
            except (KeyError, IndexError, TypeError):
                raise Refused(f"output={self.output!r}: the module returns {kind} without such an entry") from None
        for value in _leaves(held):
            return value
        raise Refused(f"an output of type {kind}; expected one tensor, or several in a tuple or mapping")


def _leaves(value: Any) -> Iterator[Tensor]:
    value = vars(value) if dataclasses.is_dataclass(value) else value
    if isinstance(value, Tensor):
        yield value
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _leaves(part)


@dataclass(frozen=True)
class Network:
    """A copy of a module in evaluation mode, its tensors shared with the module where they are numbers on the host.

    Args:
        module: the copy, which returns one tensor.
        keys: for each name of a parameter or buffer of the copy, the state dict keys of the tensor, several if tied.
        args: the example's positional inputs.
        kwargs: the example's named inputs.
    """

    module: Chosen
    keys: dict[str, list[str]]
    args: tuple[Tensor, ...] = ()
    kwargs: dict[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Iterate over the names and tensors of all parameters and buffers, tied ones under each of their names."""
        yield from self.module.named_parameters(remove_duplicate=False)
        yield from self.module.named_buffers(remove_duplicate=False)

    def failure(self) -> Exception | None:
        """Return the error that the forward pass on the example raises, if any."""
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                self.module(*self.args, **self.kwargs)
        except Exception as error:
            return error
        return None


def network(module: nn.Module, output: str | int | None) -> Network:
    """Copy a module without copying its tensors."""
    held = [value for child in module.modules() for value in vars(child).values() if isinstance(value, Tensor)]
    memo = {id(value): _hosted(value) for value in [*module.parameters(), *module.buffers(), *held]}
    owners: dict[int, list[str]] = {}
    for key, value in module.state_dict(keep_vars=True).items():
        owners.setdefault(id(memo.get(id(value), value)), []).append(key)
    try:
        own = Chosen(copy.deepcopy(module, dict(memo)), output).eval()
    except Exception as error:
        raise Refused(f"{type(module).__name__} cannot be copied: {type(error).__name__}: {error}") from error
    return Network(own, {name: owners.get(id(value), []) for name, value in Network(own, {}).tensors()})


def _hosted(value: Tensor) -> Tensor:
    """Return the tensor itself, or numbers of single precision on the host for what is elsewhere or in less."""
    exact = value.dtype in (torch.float32, torch.float64) or not value.is_floating_point()
    if exact and value.device.type == "cpu" and value.layout == torch.strided:
        return value if value.is_leaf else value.detach()
    data = torch.zeros(value.shape) if value.is_meta else value.detach().to_dense().to("cpu")
    data = data.float() if value.is_floating_point() else data.to(value.dtype)
    return nn.Parameter(data) if isinstance(value, nn.Parameter) else data


def with_example(net: Network, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Network:
    """Return the network with the example in its own precision, or with the first one that it takes."""
    dtype = next((value.dtype for value in net.module.parameters()), torch.float32)

    def own(value: Tensor) -> Tensor:
        return value.detach().to("cpu", dtype if value.is_floating_point() else None)

    if args or kwargs:
        named = {name: own(value) for name, value in kwargs.items()}
        return dataclasses.replace(net, args=tuple(map(own, args)), kwargs=named)
    error: Any = "it has no layer of torch.nn and no matrix to tell one"
    for example in _examples(net.module):
        tried = dataclasses.replace(net, args=(own(example),))
        if (error := tried.failure()) is None:
            return tried
    raise Refused(f"no shape was found that the module takes; pass example_input ({error})")


def _examples(module: nn.Module) -> Iterator[Tensor]:
    """Make inputs of the sizes that the first layers read."""
    generator = torch.Generator().manual_seed(0)
    layers = (nn.Embedding, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    first: Any
    for first in [child for child in module.modules() if isinstance(child, layers)][:3]:
        if isinstance(first, nn.Embedding):
            yield torch.arange(2 * 4).view(2, 4) % first.num_embeddings
        elif isinstance(first, nn.Linear):
            yield 2 * rand((2, first.in_features), generator=generator, dtype=torch.float64) - 1
        else:
            dims = len(first.kernel_size)
            for size in SIZES if dims < 3 else (16, 32):
                shape = (2, first.in_channels, *[size] * dims)
                yield 2 * rand(shape, generator=generator, dtype=torch.float64) - 1
    for matrix in [value for value in module.parameters() if value.ndim == 2][:1]:
        yield 2 * rand((2, matrix.shape[1]), generator=generator, dtype=torch.float64) - 1


def export(net: Network) -> torch.export.ExportedProgram:
    """Trace the network into a graph of ATen operators.

    Raises:
        Refused: naming the error, and the line of source that raised it.
    """
    try:
        with quiet():
            return torch.export.export(net.module, net.args, net.kwargs, strict=False)
    except Refused:
        raise
    except Exception as error:
        if failure := net.failure():
            shapes = [list(value.shape) for value in (*net.args, *net.kwargs.values())]
            shown = shapes[0] if len(shapes) == 1 else shapes
            raise Refused(f"the module fails on the example input {shown}: {failure}") from failure
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not inside(frame.filename)]
        at = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}, {frames[-1].line!r}" if frames else ""
        kind, text = type(error).__name__, str(error).strip().partition("\n")[0]
        hint = "; a branch on numbers cannot be traced: use torch.where" if "DataDependent" in kind else ""
        raise Refused(
            f"torch.export cannot trace {type(net.module.module).__name__}{at}: {kind}: {text}{hint}"
        ) from error


def inside(path: str) -> bool:
    """Whether a file of source belongs to torch or to the tracer."""
    return path.startswith((_TORCH, _HERE, "<"))


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings, prints and the log of torch's tracer: the user gets one message."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(level)
