"""State dicts on disk, and the module that they belong to, as a person names it on the command line."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from weightspace._files import check_place, read_json, write_atomic
from weightspace._plugins import find
from weightspace._text import few
from weightspace._torch_file import check_tensors as check_values
from weightspace._torch_file import load_tensors
from weightspace.checkpoints._checks import check_tensors

SAFETENSORS, TORCH = (".safetensors",), (".pth", ".pt")
FORMS = f"a file that ends in {', '.join((*SAFETENSORS, *TORCH))}"
READ = (*SAFETENSORS, *TORCH, ".ckpt", ".bin")
INDEX = ".index.json"
"""The ending of the file that says which shard holds which tensor."""
NESTED = ("state_dict", "model_state_dict", "model")
"""The entries under which training scripts and Lightning store the state dict beside other things."""
METADATA = {"format": "pt"}
"""The metadata by which other libraries know that a safetensors file holds tensors of PyTorch."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read one state dict; code in the file is refused, not run.

    Args:
        path: ``.safetensors``, or ``.pth``, ``.pt``, ``.ckpt`` or ``.bin`` of ``torch.save``, with a state dict, alone
            or under ``"state_dict"``, ``"model_state_dict"`` or ``"model"``; or an index of shards
            (``*.index.json``), or the folder that holds one.

    Returns:
        The tensors under their own names, in their own dtypes.

    Raises:
        FileNotFoundError: if there is no such file, or no index in the folder.
        ValueError: for another kind of file, content other than a state dict, tensors without numbers of their own, and
            an index that names files elsewhere or tensors that its files do not hold.

    Example:
        >>> import tempfile
        >>> from weightspace.checkpoints import read_checkpoint, write_checkpoint
        >>> path = tempfile.mkdtemp() + "/a.safetensors"
        >>> write_checkpoint({"w": torch.ones(2)}, path)
        >>> read_checkpoint(path)
        {'w': tensor([1., 1.])}
    """
    path = Path(path)
    if path.is_dir() or path.name.endswith(INDEX):
        return _read_shards(path)
    if path.suffix not in READ:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(READ)}, got {path.suffix or 'no ending'!r}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a state dict, got no such file")
    state: Any = _read_safetensors(path) if path.suffix in SAFETENSORS else load_tensors(path)
    while isinstance(state, Mapping) and not all(isinstance(value, Tensor) for value in state.values()):
        inner = [state[key] for key in NESTED if isinstance(state.get(key), Mapping)]
        if not inner:
            break
        state = inner[0]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        got = few(sorted(map(str, state))) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"{path}: expected a state dict, names to tensors, got {got}; save module.state_dict() alone")
    check_values(path, state)
    return dict(state)


def _read_shards(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a sharded checkpoint, in the order of its index."""
    found = sorted(path.glob(f"*{INDEX}")) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].is_file():
        raise FileNotFoundError(f"{path}: expected one file *{INDEX} of shards, got {few([f.name for f in found])}")
    index = found[0]
    try:
        places = read_json(index, "an index of shards")["weight_map"]
        names = {key: str(name) for key, name in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index}: expected a weight_map of tensors to files ({type(error).__name__})") from error
    if far := sorted({name for name in names.values() if Path(name).name != name or Path(name).suffix not in READ}):
        raise ValueError(f"{index}: expected the names of files beside it, got {few(far)}")
    shards = {name: read_checkpoint(index.parent / name) for name in dict.fromkeys(names.values())}
    if missing := [key for key, name in names.items() if key not in shards[name]]:
        raise ValueError(f"{index}: expected tensors in the files that it names, {few(missing)} are not there")
    return {key: shards[name][key] for key, name in names.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a file of safetensors, got a damaged or other one ({error})") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata of a safetensors file that :func:`read_checkpoint` reads; other files have none."""
    path = Path(path)
    if path.suffix not in SAFETENSORS:
        return {}
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def write_checkpoint(
    state_dict: Mapping[str, Tensor], path: str | Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write one state dict, in the format of the name's ending: the whole file appears at once, or not at all.

    Args:
        state_dict: names to tensors.
        path: ``.safetensors``, ``.pth`` or ``.pt``.
        metadata: entries of a safetensors file beside ``{"format": "pt"}``, which is always there; other files have
            none.

    Raises:
        TypeError: for something other than a mapping of tensors.
        ValueError: for another ending.
        OSError: if the disk is full or the folder cannot be written; an earlier file stays as it was.
    """
    path = Path(path)
    check_target(path)
    check_tensors("state_dict", state_dict)
    if path.suffix in SAFETENSORS:
        tensors = {name: value.detach().contiguous().clone() for name, value in state_dict.items()}
        write_atomic(path, save(tensors, {**METADATA, **(metadata or {})}))
    else:
        buffer = io.BytesIO()
        torch.save(dict(state_dict), buffer)
        write_atomic(path, buffer.getvalue())


def load_module(name: str) -> nn.Module:
    """Make the module that ``package.module:attribute`` names: a module, or a callable that makes one.

    This runs the code of that package. The working directory is searched last, so that a file beside the data does not
    hide an installed package.

    Raises:
        ValueError: for a name of another form, one that cannot be imported, or an object that is not a module.

    Example:
        >>> load_module("torch.nn:Identity")
        Identity()
    """
    home, colon, attribute = name.partition(":")
    if not (home and colon and attribute):
        raise ValueError(f"module: expected package.module:function, such as my_pkg:make_model, got {name!r}")
    found: Any = find("modules", name, {})
    made = found if isinstance(found, nn.Module) or not callable(found) else found()
    if not isinstance(made, nn.Module):
        raise ValueError(f"module: expected {name!r} to be or to make an nn.Module, got {type(made).__name__}")
    return made


def check_target(path: Path) -> None:
    """Raise unless a checkpoint can be written to ``path``.

    Raises:
        ValueError: for another ending.
        OSError: for a place that is not writable.
    """
    check_form(path)
    check_place(path)


def check_form(path: Path) -> None:
    """Raise ``ValueError`` for a name with another ending than those of checkpoints."""
    if path.suffix not in (*SAFETENSORS, *TORCH):
        raise ValueError(f"{path}: expected {FORMS}, got {path.suffix or 'no ending'!r}")
