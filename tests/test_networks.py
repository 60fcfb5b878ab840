"""Networks: rows, joined batches, columns of the right kind."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import weightspace as ws

SPEC = ws.siren(2, 3, 1)


def networks(count: int = 4, **columns: object) -> ws.Networks:
    flat = torch.arange(count * SPEC.num_params, dtype=torch.float32).reshape(count, -1)
    return ws.Networks(ws.Weights(flat, SPEC), **columns)  # type: ignore[arg-type]


def test_columns_become_tensors_of_their_kind() -> None:
    n = networks(
        label=[0, 1, 2, 1], source=np.arange(4, dtype=np.int32), view=(0, 0, 1, 1), psnr=[1, 2, float("nan"), 4]
    )
    kinds = [column.dtype for column in (n.label, n.source, n.view, n.psnr) if column is not None]
    assert kinds == [torch.int64, torch.int64, torch.int64, torch.float32]
    assert n.spec == SPEC
    assert networks(label=[0.5, 1.0, 2.0, 3.0]).label.dtype == torch.float32  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "rows", [slice(1, 3), [2, 0], torch.tensor([3, 3]), torch.tensor([True, False, True, False]), 2, -1]
)
def test_rows_are_those_of_every_column(rows: object) -> None:
    n = networks(label=[5, 6, 7, 8], psnr=[1.0, 2.0, 3.0, 4.0])
    part = n[rows]  # type: ignore[index]
    index = np.atleast_1d(np.arange(4)[rows.numpy() if isinstance(rows, torch.Tensor) else rows])
    assert len(part) == len(index)
    assert torch.equal(part.weights.flat, n.weights.flat[torch.from_numpy(index)])
    assert part.label.tolist() == (index + 5).tolist()  # type: ignore[union-attr]
    assert part.psnr.tolist() == (index + 1.0).tolist()  # type: ignore[union-attr]
    assert part.source is None


def test_cat_joins_what_all_parts_know() -> None:
    n = networks(label=[5, 6, 7, 8])
    both = ws.Networks.cat([n, n[1:2]])
    assert (len(both), both.label.tolist()) == (5, [5, 6, 7, 8, 6])  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="label: expected all parts to have it or none, got both"):
        ws.Networks.cat([n, networks()])
    with pytest.raises(ValueError, match=r"label: expected values of one kind, got .*float32.*int64"):
        ws.Networks.cat([networks(label=[0, 1, 0, 1]), networks(label=[0.5, 1, 0, 1])])
    with pytest.raises(ValueError, match="at least one batch of networks, got none"):
        ws.Networks.cat([])


def test_networks_are_frozen_and_replaced() -> None:
    n = networks(label=[0, 1, 0, 1])
    with pytest.raises(AttributeError):
        n.label = None  # type: ignore[misc]
    assert n.replace(label=None).label is None
    assert n.to("cpu").label.tolist() == [0, 1, 0, 1]  # type: ignore[union-attr]
    assert repr(n) == "Networks(4 x siren(2-3-1, omega=30), label, cpu)"


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"label": [1, 2]}, "label: expected one value for each of 4 networks, got shape [2]"),
        ({"source": [0.5, 1, 2, 3]}, "source: expected whole numbers, got torch.float64; cast them"),
        ({"view": [True, False, True, False]}, "view: expected whole numbers, got torch.bool"),
        ({"label": ["a", "b", "c", "d"]}, "label: expected numbers, one for each of 4 networks"),
        ({"label": [0.0, 1.0, float("nan"), 2.0]}, "label: expected finite numbers"),
        ({"label": [0.5, 1e300, 0, 0]}, "label: expected finite numbers"),
        ({"label": torch.ones(4, dtype=torch.complex64)}, "label: expected numbers, got torch.complex64"),
    ],
)
def test_columns_of_another_kind_are_refused(columns: dict, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        networks(**columns)
    with pytest.raises(TypeError, match="weights: expected Weights, got Tensor"):
        ws.Networks(torch.zeros(2, 13))  # type: ignore[arg-type]
