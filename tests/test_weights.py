"""Weights: views of one flat tensor, state dicts, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import weightspace as ws
from weightspace import testing

SPEC = ws.siren(2, 5, 3, 1)


@pytest.fixture
def weights(generator: torch.Generator) -> ws.Weights:
    return testing.random_weights(SPEC, 4, generator=generator)


@pytest.mark.parametrize("seed", range(10))
def test_state_dicts_round_trip(seed: int, dtype: torch.dtype) -> None:
    gen = torch.Generator().manual_seed(seed)
    spec = testing.random_spec(generator=gen)
    w = testing.random_weights(spec, 3, generator=gen, dtype=dtype)
    back = ws.Weights.from_state_dicts(w.state_dicts(), spec)
    assert torch.equal(back.flat, w.flat)
    assert back.dtype == dtype
    assert [tuple(v.shape) for v in w.state_dict(1).values()] == [spec.shape(p.name) for p in spec.params]


def test_views_share_memory_with_flat_and_state_dicts_do_not(weights: ws.Weights) -> None:
    before = weights.flat.clone()
    weights.state_dict(0)["0.weight"].zero_()
    assert torch.equal(weights.flat, before)
    weights.view("1.weight")[2, 1, 3] = 7.0
    assert weights.flat[2, SPEC.slices["1.weight"].start + 1 * 5 + 3] == 7.0
    assert dict(weights.items()).keys() == {p.name for p in SPEC.params}
    assert sum(v[0].numel() for _, v in weights.items()) == SPEC.num_params


def test_channels_trail(generator: torch.Generator) -> None:
    w = ws.Weights(torch.randn(2, SPEC.num_params, 6, generator=generator), SPEC)
    assert w.view("1.weight").shape == (2, 3, 5, 6)
    assert torch.equal(w.view("1.weight")[..., 4], ws.Weights(w.flat[..., 4], SPEC).view("1.weight"))


def test_indexing_keeps_the_batch_axis(weights: ws.Weights) -> None:
    assert len(weights) == 4
    for index, rows in (
        (0, [0]),
        (-1, [3]),
        (-4, [0]),
        (np.int64(1), [1]),
        (np.int32(-1), [3]),
        (torch.tensor(1), [1]),
        (torch.tensor(-1, dtype=torch.int32), [3]),
        (slice(1, 3), [1, 2]),
        ([3, 1], [3, 1]),
        (torch.tensor([2, 2]), [2, 2]),
        (torch.tensor([True, False, False, True]), [0, 3]),
    ):
        assert torch.equal(weights[index].flat, weights.flat[rows])
    with pytest.raises(IndexError, match="expected an index below 4, got 4"):
        weights[4]
    with pytest.raises(IndexError, match="expected an index below 4, got -5"):
        weights[torch.tensor(-5)]


def test_cat_clone_and_cast(weights: ws.Weights) -> None:
    assert torch.equal(ws.Weights.cat([weights[:1], weights[1:]]).flat, weights.flat)
    copy = weights.clone()
    copy.flat.zero_()
    assert weights.flat.abs().sum() > 0
    assert weights.to(torch.float64).dtype == torch.float64
    assert "4x" in repr(weights)


def test_device(device: torch.device, generator: torch.Generator) -> None:
    w = testing.random_weights(SPEC, 2, generator=generator, device=device)
    assert w.device.type == device.type
    assert w.state_dict(0)["0.weight"].device.type == device.type


def _state(**changes: Any) -> dict[str, torch.Tensor]:
    state = ws.Weights(torch.zeros(1, SPEC.num_params), SPEC).state_dict(0)
    state.update(changes.pop("replace", {}))
    return {k: v for k, v in state.items() if k not in changes.get("drop", ())}


@pytest.mark.parametrize(
    ("states", "text"),
    [
        ([_state(), _state(drop=["1.bias"])], r"state dict 1: expected the keys .*missing \['1.bias'\], extra \[\]"),
        ([_state(replace={"9.bias": torch.zeros(1)})], r"state dict 0: .*missing \[\], extra \['9.bias'\]"),
        (
            [_state(replace={"1.weight": torch.zeros(5, 3)})],
            r"state dict 0, '1.weight': expected shape \[3, 5\], got \[5, 3\]",
        ),
        ([], "at least one state dict, got none"),
    ],
)
def test_bad_state_dicts_are_refused(states: list[dict[str, torch.Tensor]], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ws.Weights.from_state_dicts(states, SPEC)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: ws.Weights(torch.zeros(2, 7), SPEC), ValueError, r"expected \[batch, 37\].*got \[2, 7\]"),
        (lambda: ws.Weights(torch.zeros(37), SPEC), ValueError, r"got \[37\]"),
        (lambda: ws.Weights(torch.zeros(2, 37, dtype=torch.int64), SPEC), TypeError, "floating-point.*int64"),
        (lambda: ws.Weights([[0.0] * 37], SPEC), TypeError, "floating-point tensor.*got list"),  # type: ignore[arg-type]
        (lambda: ws.Weights(torch.zeros(2, 37), "siren"), TypeError, "expected a NetSpec, got str"),  # type: ignore[arg-type]
        (lambda: ws.Weights.from_state_dicts(_state(), SPEC), TypeError, "put it in a list"),  # type: ignore[arg-type]
        (lambda: ws.Weights.from_state_dicts(None, SPEC), TypeError, "sequence of state dicts, got NoneType"),  # type: ignore[arg-type]
        (lambda: ws.Weights.from_state_dicts([_state()], None), TypeError, "expected a NetSpec, got NoneType; make"),  # type: ignore[arg-type]
        (lambda: ws.Weights.from_state_dicts([None], SPEC), TypeError, "state dict 0: expected a mapping.*NoneType"),  # type: ignore[list-item]
        (
            lambda: ws.Weights.from_state_dicts([_state(), _state(replace={"1.bias": "a"})], SPEC),
            TypeError,
            "state dict 1, '1.bias': expected a tensor, got str",
        ),
        (
            lambda: ws.Weights.from_state_dicts([_state(replace={"1.bias": None})], SPEC),
            TypeError,
            "state dict 0, '1.bias': expected a tensor, got NoneType",
        ),
        (lambda: ws.Weights.cat([]), ValueError, "at least one batch"),
        (lambda: ws.Weights.cat([torch.zeros(1, 37)]), TypeError, "part 0: expected Weights, got Tensor; wrap"),  # type: ignore[list-item]
        (
            lambda: ws.Weights.cat([ws.Weights(torch.zeros(1, 37), SPEC), None]),  # type: ignore[list-item]
            TypeError,
            "part 1: expected Weights, got NoneType",
        ),
        (
            lambda: ws.Weights.cat(
                [ws.Weights(torch.zeros(1, 37), SPEC), ws.Weights(torch.zeros(1, 37), ws.mlp(2, 5, 3, 1))]
            ),
            ValueError,
            "expected networks of one spec, got siren.* and mlp.*relu",
        ),
    ],
)
def test_bad_input_is_refused(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda v: torch.complex(v, v + 5), TypeError, "expected real numbers, got torch.complex64"),
        (lambda v: v.to(torch.float8_e4m3fn), TypeError, "expected 16 bits or more a number, got torch.float8_e4m3fn"),
        (lambda v: v.to("meta"), ValueError, "expected a dense tensor with its values, got a meta one"),
        (lambda v: v.to_sparse(), ValueError, "expected a dense tensor with its values, got a sparse_coo one"),
        (lambda v: "weights", TypeError, "expected a tensor, got str"),
    ],
)
def test_numbers_that_would_be_lost_or_are_not_there_are_refused(change, kind: type[Exception], text: str) -> None:
    state = ws.testing.random_weights(SPEC, 1, generator=torch.Generator().manual_seed(0)).state_dict()
    name = next(iter(state))
    with pytest.raises(kind, match=f"state dict 0, '{name}': {text}"):
        ws.Weights.from_state_dicts([{**state, name: change(state[name])}], SPEC)


def test_arrays_of_numpy_are_read_whatever_their_strides_and_byte_order() -> None:
    weights = ws.testing.random_weights(SPEC, 1, generator=torch.Generator().manual_seed(0))
    state = {name: value.numpy() for name, value in weights.state_dict().items()}
    reversed_twice = {name: np.flip(np.ascontiguousarray(np.flip(value))) for name, value in state.items()}
    big_endian = {name: value.astype(">f4") for name, value in state.items()}
    for other in (state, reversed_twice, big_endian):
        assert torch.equal(ws.Weights.from_state_dicts([other], SPEC).flat, weights.flat)  # type: ignore[list-item]
