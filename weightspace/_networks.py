"""``Networks``: a batch of networks with what is known of each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace._spec import NetSpec
from weightspace._table import column as further_column
from weightspace._table import joined, rows_of
from weightspace._weights import Weights, check_weights

COLUMNS = ("label", "source", "view", "psnr")
"""Names of the columns beside the weights, in the order of the constructor."""


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks of one spec, each with its label, its signal and the quality of its fit: a row a network.

    :func:`weightspace.fit` returns them, a zoo is written from them and read as them, and batches of a zoo are
    ``Networks`` too. A column that is not known is ``None``.

    Args:
        weights: ``batch`` networks.
        label: ``[batch]``, whole numbers (a class each, -1 where unlabelled) or real ones (a number to predict).
        source: ``[batch]`` whole numbers, the signal that each network was fitted to. Splits never share a source.
        view: ``[batch]`` whole numbers, which of the independent fits to its signal each network is.
        psnr: ``[batch]`` real numbers, quality of the fit in dB; NaN where unknown.
        columns: further columns by name, ``[batch]`` numbers or texts, such as hyper-parameters, accuracies, names of
            files. Whole numbers become int64 tensors, real ones float64 (NaN where unknown), texts an array.

    Columns may be lists or arrays; they become tensors on the device of the weights: int64, or float32 for the PSNR
    and for real-valued labels.

    Raises:
        TypeError: for weights that are not ``Weights``.
        ValueError: for a column of another length, with values of another kind, or of a name that is taken.

    Example:
        >>> import weightspace as ws
        >>> w = ws.Weights(torch.zeros(4, 17), ws.siren(2, 4, 1))
        >>> networks = ws.Networks(w, label=[0, 1, 0, 1], psnr=[30.0, 31.5, 29.0, 30.2])
        >>> len(networks), networks[1:3].label.tolist(), networks.source is None
        (4, [1, 0], True)
        >>> trained = networks.replace(columns={"accuracy": [0.9, 0.8, 0.7, 0.9], "optimizer": ["adam"] * 4})
        >>> trained[2].columns["optimizer"].tolist()
        ['adam']
    """

    weights: Weights
    label: Tensor | None = None
    source: Tensor | None = None
    view: Tensor | None = None
    psnr: Tensor | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_weights("weights", self.weights)
        for name in COLUMNS:
            values: Any = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _column(name, values, self.weights))
        if not isinstance(self.columns, Mapping):
            raise TypeError(f"columns: expected a mapping from names to values, got {type(self.columns).__name__}")
        further = {n: further_column(n, v, len(self), self.weights.device) for n, v in self.columns.items()}
        object.__setattr__(self, "columns", further)

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, rows: int | slice | Tensor | Sequence[int]) -> Networks:
        """Return the networks at ``rows``; an integer keeps the batch axis, so the result is always a batch."""
        weights = self.weights[rows]
        if not isinstance(rows, slice):
            rows = torch.arange(len(self))[rows.cpu() if isinstance(rows, Tensor) else rows].reshape(-1)
            rows = rows.to(self.weights.device)
        further = {name: rows_of(values, rows) for name, values in self.columns.items()}
        return Networks(
            weights, **{n: v if v is None else v[rows] for n, v in self._columns().items()}, columns=further
        )

    def __iter__(self) -> Iterator[Networks]:
        """Iterate over the networks, each a batch of one."""
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        named = [name for name, value in self._columns().items() if value is not None]
        known = ", ".join([*named, *self.columns])
        return f"Networks({len(self)} x {self.spec}, {known or 'no columns'}, {self.weights.device})"

    @property
    def spec(self) -> NetSpec:
        """The spec of the networks."""
        return self.weights.spec

    def _columns(self) -> dict[str, Tensor | None]:
        return {name: getattr(self, name) for name in COLUMNS}

    def replace(self, **fields: Any) -> Networks:
        """Return the same networks with other weights or columns."""
        return replace(self, **fields)

    def to(self, device: torch.device | str) -> Networks:
        """Move weights and columns to a device."""
        moved = {name: value if value is None else value.to(device) for name, value in self._columns().items()}
        further = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in self.columns.items()}
        return Networks(self.weights.to(device), **moved, columns=further)

    @classmethod
    def cat(cls, parts: Sequence[Networks]) -> Networks:
        """Join batches of one spec; all of them must know the same columns.

        Raises:
            ValueError: for no parts, different specs, a column that some know and others do not, or one with whole
                numbers here and real ones there.

        Example:
            >>> import weightspace as ws
            >>> part = ws.Networks(ws.Weights(torch.zeros(2, 17), ws.siren(2, 4, 1)), label=[0, 1])
            >>> ws.Networks.cat([part, part]).label.tolist()
            [0, 1, 0, 1]
        """
        if not parts:
            raise ValueError("expected at least one batch of networks, got none")
        columns = {}
        for name in COLUMNS:
            values = [getattr(part, name) for part in parts]
            if len({value is None for value in values}) > 1:
                raise ValueError(f"{name}: expected all parts to have it or none, got both; drop it with replace()")
            if len(kinds := {value.dtype for value in values if value is not None}) > 1:
                raise ValueError(f"{name}: expected values of one kind, got {sorted(map(str, kinds))}; convert some")
            columns[name] = None if values[0] is None else torch.cat(values)
        names = list(parts[0].columns)
        if (other := next((list(part.columns) for part in parts if {*part.columns} != {*names}), None)) is not None:
            raise ValueError(
                f"columns: expected {names} in all parts, got {other}; drop some with replace(columns=...)"
            )
        further = {name: joined(name, [part.columns[name] for part in parts]) for name in names}
        return cls(Weights.cat([part.weights for part in parts]), **columns, columns=further)


def _column(name: str, values: Any, weights: Weights) -> Tensor:
    """Return a column as a tensor on the weights' device, in its dtype."""
    count, real = len(weights), name == "psnr"
    kind = "numbers" if name in ("psnr", "label") else "whole numbers"
    try:
        column = torch.as_tensor(np.asarray(values) if isinstance(values, list | tuple) else values).detach()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name}: expected {kind}, one for each of {count} networks, got {values!r:.80}") from error
    if list(column.shape) != [count]:
        raise ValueError(f"{name}: expected one value for each of {count} networks, got shape {list(column.shape)}")
    if column.dtype == torch.bool or column.is_complex():
        raise ValueError(f"{name}: expected {kind}, got {column.dtype}")
    if name == "label" and column.is_floating_point():
        if not bool(column.float().isfinite().all()):
            raise ValueError("label: expected finite numbers, got NaN or infinity; leave those networks out")
        real = True
    if not real and column.is_floating_point():
        raise ValueError(f"{name}: expected whole numbers, got {column.dtype}; cast them with .long()")
    return column.to(device=weights.device, dtype=torch.float32 if real else torch.int64)


def check_networks(name: str, networks: Any) -> None:
    """Raise ``TypeError`` for anything but ``Networks``."""
    if not isinstance(networks, Networks):
        raise TypeError(f"{name}: expected Networks, got {type(networks).__name__}; wrap them: ws.Networks(weights)")
