"""The contract of every transform, as functions: a new transform adds one row to ``tests/test_transforms.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import weightspace as ws
from weightspace.transforms import Transform

BATCH = 6


@dataclass(frozen=True)
class Row:
    """One transform under test.

    Args:
        transform: what is tested.
        specs: names of the specs that it takes; all others it must refuse if ``refuses`` names them.
        refuses: names of specs that it must refuse.
        random: whether it draws random numbers for the weights.
        changes: whether it changes the weights.
    """

    transform: Transform
    specs: tuple[str, ...]
    refuses: tuple[str, ...] = ()
    random: bool = True
    changes: bool = True


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def networks(spec: ws.NetSpec, dtype: torch.dtype, *, batch: int = BATCH, seed: int = 7) -> ws.Weights:
    """Random networks with pre-activations of moderate size, whatever omega."""
    flat = torch.randn(batch, spec.num_params, generator=generator(seed), dtype=dtype)
    scale = 0.3 / max([axis.omega for axis in spec.hidden], default=1.0) ** 0.5
    return ws.Weights(scale * flat, spec)


def points(spec: ws.NetSpec, dtype: torch.dtype) -> Tensor:
    return 2 * torch.rand(11, spec.in_features, generator=generator(3), dtype=dtype) - 1


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"atol": 2e-3, "rtol": 2e-3} if dtype == torch.float32 else {"atol": 1e-9, "rtol": 1e-9}


def phi(draw: Any, x: Tensor) -> Tensor:
    return draw.phi(x) if hasattr(draw, "phi") else x


def check_keeps(transform: Transform, spec: ws.NetSpec, dtype: torch.dtype) -> None:
    """What is declared kept is kept, and "nothing" is not declared out of caution."""
    w, x = networks(spec, dtype), points(spec, dtype)
    draw = transform.sample(w, generator=generator())
    after = ws.evaluate(transform.apply(w, draw), x)
    if transform.keeps == "nothing":
        assert not torch.allclose(after, ws.evaluate(w, x), atol=1e-4)
        return
    expected = ws.evaluate(w, x if transform.keeps == "function" else phi(draw, x))
    torch.testing.assert_close(after, expected, **tolerance(dtype))


def check_outline(transform: Transform, spec: ws.NetSpec, dtype: torch.dtype) -> None:
    """Spec, shape, dtype and device stay; the result is new memory; the input is not written."""
    w = networks(spec, dtype)
    before, version = w.flat.clone(), w.flat._version
    labels = torch.arange(len(w)) % 3
    moved, soft = transform(w, labels, num_classes=3, generator=generator())
    assert moved.spec == spec
    assert moved.flat.shape == w.flat.shape
    assert (moved.dtype, moved.device) == (w.dtype, w.device)
    assert (soft.dtype, tuple(soft.shape)) == (dtype, (len(w), 3))
    torch.testing.assert_close(soft.sum(1), torch.ones(len(w), dtype=dtype))
    assert w.flat.equal(before)
    assert w.flat._version == version
    moved.flat.zero_()
    assert w.flat.equal(before)


def check_seeds(transform: Transform, spec: ws.NetSpec, dtype: torch.dtype, *, random: bool) -> None:
    """Same seed, same result; another seed, another; the global stream is not touched."""
    w = networks(spec, dtype)
    state = torch.random.get_rng_state()
    first, again, other = (transform(w, generator=generator(seed)).flat for seed in (0, 0, 1))
    assert first.equal(again)
    assert first.equal(other) is not random
    assert torch.random.get_rng_state().equal(state)


def check_call(transform: Transform, spec: ws.NetSpec, dtype: torch.dtype) -> None:
    """Calling is sampling and applying."""
    w = networks(spec, dtype)
    soft = torch.eye(len(w), dtype=dtype)
    draw = transform.sample(w, generator=generator())
    called, labels = transform(w, soft, generator=generator())
    assert called.flat.equal(transform.apply(w, draw).flat)
    assert labels.equal(transform.apply_labels(soft, draw))
    assert len(draw) == len(w)


def check_independence(transform: Transform, spec: ws.NetSpec, dtype: torch.dtype) -> None:
    """Networks of one batch draw independently: equal rows come out different."""
    w = networks(spec, dtype, batch=1)
    w = w.replace(w.flat.expand(16, -1).contiguous())
    pool = {"pool": networks(spec, dtype, seed=9)} if transform.mixes else {}
    moved = transform(w, generator=generator(), **pool)
    assert len(torch.unique(moved.flat, dim=0)) > 1


def check_rows(transform: Transform, spec: ws.NetSpec, dtype: torch.dtype) -> None:
    """A batch of one equals that row, by slice and by index; labels too, given the batch's labels."""
    w, soft = networks(spec, dtype), torch.eye(BATCH, dtype=dtype)
    draw = transform.sample(w, generator=generator())
    whole, labels = transform.apply(w, draw), transform.apply_labels(soft, draw)
    for i in range(len(w)):
        row = slice(i, i + 1)
        torch.testing.assert_close(transform.apply(w[row], draw[row]).flat, whole.flat[row])
        torch.testing.assert_close(transform.apply_labels(soft[row], draw[row], pool=soft), labels[row])
    index = torch.tensor([4, 1])
    torch.testing.assert_close(transform.apply(w[index], draw[index]).flat, whole.flat[index])
    assert len(draw[index]) == 2


def check_empty(transform: Transform, spec: ws.NetSpec, dtype: torch.dtype) -> None:
    """No networks in, no networks out."""
    assert len(transform(networks(spec, dtype)[:0], generator=generator())) == 0


def check_all(transform: Transform, spec: ws.NetSpec, dtype: torch.dtype, *, random: bool = True) -> None:
    """The whole contract."""
    check_keeps(transform, spec, dtype)
    check_outline(transform, spec, dtype)
    check_seeds(transform, spec, dtype, random=random)
    check_call(transform, spec, dtype)
    check_rows(transform, spec, dtype)
    check_empty(transform, spec, dtype)
    if random:
        check_independence(transform, spec, dtype)
