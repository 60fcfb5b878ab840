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


CPU = torch.device("cpu")


def networks(
    spec: ws.NetSpec, dtype: torch.dtype, *, batch: int = BATCH, seed: int = 7, device: torch.device = CPU
) -> ws.Weights:
    """Random networks with pre-activations of moderate size, whatever omega."""
    flat = torch.randn(batch, spec.num_params, generator=generator(seed), dtype=dtype)
    scale = 0.3 / max([axis.omega for axis in spec.hidden], default=1.0) ** 0.5
    return ws.Weights((scale * flat).to(device), spec)


def points(spec: ws.NetSpec, dtype: torch.dtype, device: torch.device = CPU) -> Tensor:
    return (2 * torch.rand(11, spec.in_features, generator=generator(3), dtype=dtype) - 1).to(device)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"atol": 2e-3, "rtol": 2e-3} if dtype == torch.float32 else {"atol": 1e-9, "rtol": 1e-9}


def phi(draw: Any, x: Tensor) -> Tensor:
    return draw.phi(x) if hasattr(draw, "phi") else x


def check_keeps(transform: Transform, w: ws.Weights) -> None:
    """What is declared kept is kept, and "nothing" is not declared out of caution."""
    x = points(w.spec, w.dtype, w.device)
    draw = transform.sample(w, generator=generator())
    after = ws.evaluate(transform.apply(w, draw), x)
    if transform.preserves == "nothing":
        assert not torch.allclose(after, ws.evaluate(w, x), atol=1e-4)
        return
    expected = ws.evaluate(w, x if transform.preserves == "function" else phi(draw, x))
    torch.testing.assert_close(after, expected, **tolerance(w.dtype))


def check_outline(transform: Transform, w: ws.Weights, *, changes: bool = True) -> None:
    """Spec, shape, dtype and device stay; the result is new memory; the input is not written."""
    before, version = w.flat.clone(), w.flat._version
    labels = torch.arange(len(w), device=w.device) % 3
    moved, soft = transform(w, labels, num_classes=3, generator=generator())
    assert moved.spec == w.spec
    assert moved.flat.shape == w.flat.shape
    assert (moved.dtype, moved.device) == (w.dtype, w.device)
    assert (soft.dtype, tuple(soft.shape), soft.device) == (w.dtype, (len(w), 3), w.device)
    torch.testing.assert_close(soft.sum(1), torch.ones(len(w), dtype=w.dtype, device=w.device))
    assert w.flat.equal(before)
    assert w.flat._version == version
    assert moved.flat.equal(before) is not changes
    moved.flat.zero_()
    assert w.flat.equal(before)


def check_seeds(transform: Transform, w: ws.Weights, *, random: bool) -> None:
    """Same seed, same result; another seed, another; the global stream is not touched."""
    state = torch.random.get_rng_state()
    first, again, other = (transform(w, generator=generator(seed)).flat for seed in (0, 0, 1))
    assert first.equal(again)
    assert first.equal(other) is not random
    assert torch.random.get_rng_state().equal(state)


def check_call(transform: Transform, w: ws.Weights) -> None:
    """Calling is sampling and applying."""
    soft = torch.eye(len(w), dtype=w.dtype, device=w.device)
    draw = transform.sample(w, generator=generator())
    called, labels = transform(w, soft, generator=generator())
    assert called.flat.equal(transform.apply(w, draw).flat)
    assert labels.equal(transform.apply_labels(soft, draw))
    assert len(draw) == len(w)


def check_independence(transform: Transform, w: ws.Weights) -> None:
    """Networks of one batch draw independently: equal rows come out different."""
    same = w.replace(w.flat[:1].expand(16, -1).contiguous())
    pool = {"pool": networks(w.spec, w.dtype, seed=9, device=w.device)} if transform.mixes_networks else {}
    moved = transform(same, generator=generator(), **pool)
    assert len(torch.unique(moved.flat, dim=0)) > 1


def check_rows(transform: Transform, w: ws.Weights) -> None:
    """A batch of one equals that row, by slice and by index; labels too, given the batch's labels."""
    soft = torch.eye(len(w), dtype=w.dtype, device=w.device)
    draw = transform.sample(w, generator=generator())
    whole, labels = transform.apply(w, draw), transform.apply_labels(soft, draw)
    for i in range(len(w)):
        row = slice(i, i + 1)
        torch.testing.assert_close(transform.apply(w[row], draw[row]).flat, whole.flat[row])
        torch.testing.assert_close(transform.apply_labels(soft[row], draw[row], pool=soft), labels[row])
    index = torch.tensor([4, 1], device=w.device)
    torch.testing.assert_close(transform.apply(w[index], draw[index]).flat, whole.flat[index])
    assert len(draw[index]) == 2


def check_empty(transform: Transform, w: ws.Weights) -> None:
    """No networks in, no networks out."""
    assert len(transform(w[:0], generator=generator())) == 0


def check_labels_follow(transform: Transform, w: ws.Weights) -> None:
    """``labels @ weights`` are the mixed weights: for transforms that only mix networks as they are, one share each.

    With one class for every network of the batch (and of the pool) a label says what its network is made of.
    """
    soft = torch.eye(len(w), dtype=w.dtype, device=w.device)
    draw = transform.sample(w, generator=generator())
    mixed = transform.apply(w, draw).flat
    assert not mixed.equal(w.flat)
    torch.testing.assert_close(transform.apply_labels(soft, draw) @ w.flat, mixed)
    pool = networks(w.spec, w.dtype, seed=9, device=w.device)
    every = torch.eye(len(w) + len(pool), dtype=w.dtype, device=w.device)
    own, others = every[: len(w)], every[len(w) :]
    called, labels = transform(w, own, generator=generator(), pool=(pool, others))
    torch.testing.assert_close(labels @ torch.cat([w.flat, pool.flat]), called.flat)


def check_all(transform: Transform, w: ws.Weights, *, random: bool = True, changes: bool = True) -> None:
    """The whole contract, on these networks."""
    check_keeps(transform, w)
    check_outline(transform, w, changes=changes)
    check_seeds(transform, w, random=random)
    check_call(transform, w)
    check_rows(transform, w)
    check_empty(transform, w)
    if random:
        check_independence(transform, w)


def accepts(transform, spec):
    try:
        transform.check(spec)
    except ValueError:
        return False
    return True
