"""State dicts on disk, and the module that they belong to, as a person names them on the command line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SAFETENSORS, TORCH = (".safetensors",), (".pth", ".pt")
FORMS = f"a file that ends in {', '.join((*SAFETENSORS, *TORCH))}"


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read one state dict; code in the file is refused, not run.

    Args:
        path: ``.safetensors``, or ``.pth`` or ``.pt`` of ``torch.save``, holding a state dict and it alone.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: for another kind of file, or what is no state dict.

    Example:
        >>> import tempfile
        >>> from weightspace.checkpoints import read_checkpoint, write_checkpoint
        >>> path = tempfile.mkdtemp() + "/a.safetensors"
        >>> write_checkpoint({"w": torch.ones(2)}, path)
        >>> read_checkpoint(path)
        {'w': tensor([1., 1.])}
    """
    path = Path(path)
    _form(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a state dict, got no such file")
    try:
        state: Any = (
            load_file(path) if path.suffix in SAFETENSORS else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f"{path}: expected a state dict of plain tensors, got a damaged or other file "
            f"({type(error).__name__}: {error!s:.120})"
        ) from error
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        got = sorted(map(str, state))[:5] if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"{path}: expected a state dict, names to tensors, got {got}; save module.state_dict() alone")
    return dict(state)


def write_checkpoint(state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Write one state dict, in the form that the name's ending says, by way of a file beside it.

    Args:
        state_dict: names to tensors.
        path: ``.safetensors``, ``.pth`` or ``.pt``.

    Raises:
        ValueError: for another ending.
    """
    path = Path(path)
    _form(path)
    part = path.with_name(f".{path.name}.part")
    try:
        if path.suffix in SAFETENSORS:
            save_file({name: value.contiguous().clone() for name, value in state_dict.items()}, part)
        else:
            torch.save(dict(state_dict), part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_module(name: str) -> nn.Module:
    """Make the module that ``package.module:attribute`` names: a module, or what makes one without arguments.

    Raises:
        ValueError: for a name of another form, one that is not there, or what is no module.

    Example:
        >>> load_module("torch.nn:Identity")
        Identity()
    """
    home, colon, attribute = name.partition(":")
    if not (home and colon and attribute):
        raise ValueError(f"module: expected package.module:function, such as my_pkg:make_model, got {name!r}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(home)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"module: expected {name!r} to be importable from {here} or the installed packages, got {error}"
        ) from error
    made = found if isinstance(found, nn.Module) or not callable(found) else found()
    if not isinstance(made, nn.Module):
        raise ValueError(f"module: expected {name!r} to be or to make an nn.Module, got {type(made).__name__}")
    return made


def _form(path: Path) -> None:
    if path.suffix not in (*SAFETENSORS, *TORCH):
        raise ValueError(f"{path}: expected {FORMS}, got {path.suffix or 'no ending'!r}")
