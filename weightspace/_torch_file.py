"""Files of ``torch.save``, read as tensors alone, and with no more memory than the size of the file calls for."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightspace._text import printable

MOST_GROWTH = 16
"""Tensors of a file may take this many times its size: parameters that are tied are stored once."""
_ZIP = b"PK"
_HEADS = (_ZIP, b"\x80")  # zip archives, and the pickles of earlier versions
_REMEDY = "save the network's state_dict, and it alone, with torch.save"


def load_tensors(path: Path) -> Any:
    """Read a file of ``torch.save``. Code in it is refused, not run.

    Args:
        path: the file.

    Returns:
        The object that was saved: tensors on the CPU, in dictionaries and lists.

    Raises:
        OSError: if the file is not there or may not be read.
        ValueError: for another or damaged file, one that holds other objects than tensors and plain values, and for
            archives that are compressed, which PyTorch never writes; the message names the file.
    """
    with open(path, "rb") as file:
        head = file.read(16)
    if not head.startswith(_HEADS):
        raise ValueError(f"{path}: expected a file of torch.save, got one that begins with {head!r}; {_REMEDY}")
    try:
        if head.startswith(_ZIP):
            _check_stored(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: expected a state dict of plain tensors, got a file that holds code or other objects, or none of "
            f"torch.save; nothing of it was run; {_REMEDY}"
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f"{path}: expected a file of torch.save, got a damaged or other one "
            f"({type(error).__name__}: {printable(error)[:120]}); {_REMEDY}"
        ) from error


def _check_stored(path: Path) -> None:
    """Raise ``ValueError`` for an archive with compressed entries: few bytes could become any number."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("its entries are compressed, which those of torch.save never are")


def check_tensors(path: Path, values: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for tensors without numbers of their own, such as a single number shown a million times.

    Args:
        path: the file that they come from, for the message; its size bounds theirs.
        values: tensors and other values by name; the others are passed over.
    """
    size = 0
    for name, value in values.items():
        if not isinstance(value, Tensor):
            continue
        if kind := _without_values(value):
            raise ValueError(
                f"{path}, {name!r}: expected a dense tensor with its values, got a {kind} one; save dense tensors"
            )
        size += value.numel() * value.element_size()
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(
                f"{path}, {name!r}: expected a tensor with all its values, got {list(value.shape)} made of "
                f"{value.untyped_storage().nbytes()} bytes; save value.clone()"
            )
    if size > MOST_GROWTH * (there := path.stat().st_size):
        raise ValueError(
            f"{path}: expected tensors of at most {MOST_GROWTH} times the file's {there} bytes, got {size} bytes that "
            "share memory; save clones"
        )


def _without_values(value: Tensor) -> str | None:
    """Return the kind of a tensor whose numbers do not lie in memory one after another; ``None`` for all others."""
    if value.is_meta:
        return "meta"
    if value.is_nested:
        return "nested"
    return None if value.layout == torch.strided else str(value.layout).removeprefix("torch.")
