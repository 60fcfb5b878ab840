"""Further columns of networks: numbers or texts, a value a network, under names of the user's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS = ("whole", "real", "text")
"""Kinds of further columns: int64 tensors, float64 tensors, arrays of texts."""
MOST_TEXT = 4096
"""The longest text of a column, in bytes of UTF-8."""
RESERVED = ("flat", "weights", "label", "class", "source", "view", "psnr", "split", "path")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\- ]{0,63}")


def check_name(name: Any) -> None:
    """Raise ``ValueError`` for anything but the name of a further column."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
        raise ValueError(
            "columns: expected names of letters, digits, '_', '-', '.' and spaces, none of "
            f"{', '.join(RESERVED)}, got {name!r:.80}"
        )


def column(name: str, values: Any, count: int, device: torch.device) -> Tensor | np.ndarray:
    """Return a further column: whole numbers as int64, real ones as float64, texts as an array.

    Args:
        name: its name.
        values: numbers, truth values or texts; ``None`` among numbers becomes NaN.
        count: how many there must be.
        device: where numbers are to be.

    Raises:
        ValueError: for a name that cannot be one, another length, or values of another kind.
    """
    check_name(name)
    if isinstance(values, Tensor):
        found: Any = values.detach()
    else:
        if isinstance(values, list | tuple) and None in values and not any(isinstance(v, str) for v in values):
            values = [float("nan") if value is None else value for value in values]
        try:
            found = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"column {name!r}: expected a number or text each, got nested lists") from error
        if found.dtype.kind in "biuf" and found.ndim == 1:
            found = torch.as_tensor(found if found.dtype.kind != "u" else found.astype(np.int64))
    if list(found.shape) != [count]:
        raise ValueError(
            f"column {name!r}: expected one value for each of {count} networks, got shape {list(found.shape)}"
        )
    if isinstance(found, Tensor) and not found.is_complex():
        return found.to(device=device, dtype=torch.float64 if found.is_floating_point() else torch.int64)
    if isinstance(found, Tensor) or found.dtype.kind not in "US" + ("O" if not count else ""):
        raise ValueError(f"column {name!r}: expected numbers, or texts alone, got {found.dtype}")
    texts = found.astype(str)
    if texts.dtype.itemsize and (bad := [text for text in texts.tolist() if _bytes(text) > MOST_TEXT or "\0" in text]):
        raise ValueError(f"column {name!r}: expected texts of at most {MOST_TEXT} bytes, got {bad[0]!r:.60}")
    return texts


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def kind(values: Tensor | np.ndarray) -> str:
    """Return the kind of a further column, one of :data:`KINDS`."""
    if isinstance(values, Tensor):
        return "real" if values.is_floating_point() else "whole"
    return "text"


def rows_of(values: Tensor | np.ndarray, rows: Any) -> Any:
    """Return a column's values at ``rows``, a slice or a tensor of numbers."""
    if isinstance(values, Tensor):
        return values[rows]
    return values[rows.cpu().numpy() if isinstance(rows, Tensor) else rows]


def joined(name: str, parts: Sequence[Tensor | np.ndarray]) -> Tensor | np.ndarray:
    """Join the parts of a column; whole and real numbers together become real.

    Raises:
        ValueError: for texts together with numbers.
    """
    kinds = {kind(part) for part in parts}
    if "text" in kinds and len(kinds) > 1:
        raise ValueError(f"column {name!r}: expected numbers in all parts or texts in all, got both")
    if "text" in kinds:
        return np.concatenate([np.asarray(part) for part in parts])
    dtype = torch.float64 if "real" in kinds else torch.int64
    return torch.cat([torch.as_tensor(part).to(dtype) for part in parts])


def encoded(values: Tensor | np.ndarray) -> Tensor:
    """Return a column as a file holds it: numbers, or texts as bytes of UTF-8 ``[batch, width]`` with zeros behind."""
    if isinstance(values, Tensor):
        return values.cpu().clone()
    texts = [text.encode(errors="replace") for text in values.tolist()]
    width = max([1, *map(len, texts)])
    return torch.from_numpy(np.array(texts, dtype=f"S{width}").view(np.uint8).reshape(len(texts), width).copy())


def decoded(parts: Sequence[Tensor]) -> Tensor | np.ndarray:
    """Return a column from the parts that files hold, see :func:`encoded`."""
    if parts[0].dtype != torch.uint8:
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))
    texts = [bytes(row).rstrip(b"\0").decode(errors="replace") for part in parts for row in part.numpy()]
    return np.array(texts, dtype=str)


def plain(values: Tensor | np.ndarray) -> list[Any]:
    """Return a column as JSON holds it: NaN becomes ``None``."""
    return [None if value != value else value for value in values.tolist()]


def kinds_of(columns: Mapping[str, Any]) -> dict[str, str]:
    """Return the kinds of further columns by name."""
    return {name: kind(values) for name, values in columns.items()}
