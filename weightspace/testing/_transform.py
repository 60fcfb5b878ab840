"""The contract of every transform: a new transform is checked by one call."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from weightspace._evaluate import evaluate
from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights
from weightspace.testing._compare import expect, points
from weightspace.testing._random import random_weights
from weightspace.testing._specs import kinds
from weightspace.transforms import Transform
from weightspace.transforms._base import Preserves, moved_points
from weightspace.transforms.requirements import Requirement

BATCH = 6
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3}
"""Largest difference of outputs that counts as rounding, absolute and relative."""


def check_transform(
    transform: Transform,
    spec: NetSpec | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    random: bool = True,
    changes: bool = True,
) -> None:
    """Check a transform against the contract that every augmentation of the library keeps.

    The checks, on networks drawn at random: what the transform declares to preserve is preserved, and "nothing" is not
    declared out of caution; spec, shape, dtype and device stay, inputs are not written, and the result is new memory;
    soft labels stay distributions; equal seeds give equal results, different seeds different ones, and the global
    random stream is not touched; a call is ``sample`` and ``apply``; networks of one batch draw independently; rows of
    a draw belong to rows of the batch; an empty batch stays empty; and a spec that lacks a requirement is refused.

    Args:
        transform: the transform.
        spec: the networks to transform, a chain of linear layers; by default nine small specs of different kinds, of
            which the transform must take at least one and refuse those that lack a requirement.
        dtype: ``torch.float32`` or ``torch.float64``; by default both.
        device: where the networks lie.
        random: whether the transform draws random numbers for the weights.
        changes: whether the transform changes the weights.

    Raises:
        AssertionError: if a check fails, naming the transform, the networks and what was found.
        TypeError: for something other than a ``Transform`` and a ``NetSpec``.
        ValueError: for a spec that the transform refuses, no default spec that it takes, or another dtype.

    Example:
        >>> import weightspace as ws
        >>> ws.testing.check_transform(ws.transforms.SignFlip())
        >>> class Forgetful(ws.transforms.SignFlip):
        ...     def apply(self, weights, draw):
        ...         moved = super().apply(weights, draw)
        ...         moved.view("0.bias").copy_(weights.view("0.bias"))
        ...         return moved
        >>> ws.testing.check_transform(Forgetful(), ws.siren(2, 8, 1))
        Traceback (most recent call last):
        AssertionError: Forgetful(p=0.5) on siren(2-8-1, omega=30), preserves 'function': largest difference ...
    """
    __tracebackhide__ = True
    if not isinstance(transform, Transform):
        raise TypeError(f"transform: expected a Transform, got {type(transform).__name__}")
    check_declarations(transform)
    if dtype not in (None, *TOLERANCE):
        raise ValueError(f"dtype: expected torch.float32, torch.float64 or None, got {dtype}")
    if spec is not None:
        check_spec(spec)
        transform.check(spec)
    accepted = [known for known in kinds() if accepts(transform, known)] if spec is None else [spec]
    if not accepted:
        raise ValueError(f"{transform!r}: expected a transform that takes one of {list(kinds())}; pass spec=")
    if spec is None:
        for known in kinds():
            if known not in accepted:
                check_refusal(transform, known)
    for known in accepted:
        for precision in TOLERANCE if dtype is None else (dtype,):
            check_contract(transform, networks(known, precision, device), random=random, changes=changes)


def check_contract(transform: Transform, w: Weights, *, random: bool = True, changes: bool = True) -> None:
    """Check the whole contract on these networks."""
    __tracebackhide__ = True
    check_preserves(transform, w)
    check_outline(transform, w, changes=changes)
    check_seeds(transform, w, random=random)
    check_call(transform, w)
    check_rows(transform, w)
    check_empty(transform, w)
    if random:
        check_independence(transform, w)


def networks(spec: NetSpec, dtype: torch.dtype, device: torch.device | str = "cpu", *, seed: int = 7) -> Weights:
    """Draw the networks that a check runs on."""
    return random_weights(spec, BATCH, generator=generator(seed), dtype=dtype, device=device)


def generator(seed: int = 0) -> torch.Generator:
    """Make a seeded generator."""
    return torch.Generator().manual_seed(seed)


def accepts(transform: Transform, spec: NetSpec) -> bool:
    """Return whether the spec meets the requirements of the transform."""
    try:
        transform.check(spec)
    except ValueError:
        return False
    return True


def check_declarations(transform: Transform) -> None:
    """Check that the attributes are of the types that the library reads."""
    __tracebackhide__ = True
    allowed = get_args(Preserves)
    preserves = getattr(transform, "preserves", None)
    expect(preserves in allowed, f"{transform!r}: expected preserves to be one of {list(allowed)}, got {preserves!r}")
    for requirement in transform.requires:
        expect(
            isinstance(requirement, Requirement),
            f"{transform!r}: expected requires to hold Requirements, got {type(requirement).__name__}",
        )
    mixes = transform.mixes_networks
    expect(isinstance(mixes, bool), f"{transform!r}: expected mixes_networks to be True or False, got {mixes!r}")


def check_refusal(transform: Transform, spec: NetSpec) -> None:
    """Check that networks of a spec that lacks a requirement are refused, with what was expected and got."""
    __tracebackhide__ = True
    try:
        transform(networks(spec, torch.float32), generator=generator())
    except ValueError as error:
        said = str(error)
    else:
        raise AssertionError(f"{transform!r} on {spec}: expected a ValueError as from check(spec), got a result")
    well = "expected" in said and "got" in said
    expect(well, f"{transform!r} on {spec}: expected an error that says expected and got, got {said!r}")


def check_preserves(transform: Transform, w: Weights) -> None:
    """Check that what is declared preserved is preserved, and that "nothing" is not declared out of caution."""
    __tracebackhide__ = True
    x = points(w.spec, generator(3), 11).to(w.flat)
    draw = transform.sample(w, generator=generator())
    after = evaluate(transform.apply(w, draw), x)
    what = f"{_at(transform, w)}, preserves {transform.preserves!r}"
    if transform.preserves == "nothing":
        same = torch.allclose(after, evaluate(w, x), atol=1e-4)
        expect(not same, f"{what}: expected other functions, got the same; declare preserves = 'function'")
        return
    expected = evaluate(w, x if transform.preserves == "function" else moved_points(draw, x))
    _close(after, expected, what)


def check_outline(transform: Transform, w: Weights, *, changes: bool = True) -> None:
    """Check that spec, shape, dtype and device stay, that the result is new memory, and that no input is written."""
    __tracebackhide__ = True
    at, before, version = _at(transform, w), w.flat.clone(), w.flat._version
    labels = torch.arange(len(w), device=w.device) % 3
    moved, soft = transform(w, labels, num_classes=3, generator=generator())
    found, expected = ((m.spec, tuple(m.flat.shape), m.dtype, m.device) for m in (moved, w))
    expect(found == expected, f"{at}: expected spec, shape, dtype and device {expected}, got {found}")
    found, expected = (tuple(soft.shape), soft.dtype, soft.device), ((len(w), 3), w.dtype, w.device)
    expect(found == expected, f"{at}: expected soft labels of shape, dtype and device {expected}, got {found}")
    _close(soft.sum(1), torch.ones_like(soft[:, 0]), f"{at}, sums of soft labels")
    untouched = w.flat.equal(before) and w.flat._version == version
    expect(untouched, f"{at}: expected the input to stay as it is, got it written")
    changed = not moved.flat.equal(before)
    expect(changed or not changes, f"{at}: expected other weights, got the same; pass changes=False if that is right")
    expect(changes or not changed, f"{at}: expected the weights to stay as they are, got others")
    moved.flat.zero_()
    expect(w.flat.equal(before), f"{at}: expected a result in new memory, got one that shares the input's")


def check_seeds(transform: Transform, w: Weights, *, random: bool = True) -> None:
    """Check that a seed decides the result, and that the global random stream is not touched."""
    __tracebackhide__ = True
    at, state = _at(transform, w), torch.random.get_rng_state()
    first, again, other = (transform(w, generator=generator(seed)).flat for seed in (0, 0, 1))
    expect(first.equal(again), f"{at}: expected equal seeds to give equal results, got different ones")
    differs = not first.equal(other)
    expect(differs or not random, f"{at}: expected another seed to give another result, got the same")
    expect(random or not differs, f"{at}: expected no random numbers, got results that depend on the seed")
    still = torch.random.get_rng_state().equal(state)
    expect(still, f"{at}: expected random numbers from the generator alone, got some from the global stream")


def check_call(transform: Transform, w: Weights) -> None:
    """Check that a call is ``sample``, ``apply`` and ``apply_labels``."""
    __tracebackhide__ = True
    at, soft = _at(transform, w), torch.eye(len(w), dtype=w.dtype, device=w.device)
    draw = transform.sample(w, generator=generator())
    called, labels = transform(w, soft, generator=generator())
    same = called.flat.equal(transform.apply(w, draw).flat)
    expect(same, f"{at}: expected a call to give what sample and apply give, got other weights")
    same = labels.equal(transform.apply_labels(soft, draw))
    expect(same, f"{at}: expected a call to give the labels of sample and apply_labels, got others")
    expect(len(draw) == len(w), f"{at}: expected a draw of length {len(w)}, got {len(draw)}")


def check_rows(transform: Transform, w: Weights) -> None:
    """Check that rows of a draw belong to rows of the batch, by slice and by index, and labels with them."""
    __tracebackhide__ = True
    at, soft = _at(transform, w), torch.eye(len(w), dtype=w.dtype, device=w.device)
    draw = transform.sample(w, generator=generator())
    whole, labels = transform.apply(w, draw), transform.apply_labels(soft, draw)
    chosen: list[Any] = [slice(i, i + 1) for i in range(len(w))] + [torch.tensor([4, 1], device=w.device)]
    for rows in chosen:
        part, own = draw[rows], soft[rows]
        expect(len(part) == len(own), f"{at}: expected draw[{rows}] of length {len(own)}, got {len(part)}")
        _close(transform.apply(w[rows], part).flat, whole.flat[rows], f"{at}, rows {rows} applied alone")
        _close(transform.apply_labels(own, part, pool=soft), labels[rows], f"{at}, labels of rows {rows} alone")


def check_empty(transform: Transform, w: Weights) -> None:
    """Check that a batch of no networks gives no networks."""
    __tracebackhide__ = True
    found = len(transform(w[:0], generator=generator()))
    expect(found == 0, f"{_at(transform, w)}: expected no networks from an empty batch, got {found}")


def check_independence(transform: Transform, w: Weights) -> None:
    """Check that networks of one batch draw independently: equal networks come out different."""
    __tracebackhide__ = True
    same = w.replace(w.flat[:1].expand(16, -1).contiguous())
    pool: dict[str, Any] = {}
    if transform.mixes_networks:
        pool = {"pool": networks(w.spec, w.dtype, w.device, seed=9)}
    moved = transform(same, generator=generator(), **pool)
    several = len(torch.unique(moved.flat, dim=0)) > 1
    expect(several, f"{_at(transform, w)}: expected a draw for each network, got one for the whole batch")


def check_labels_follow(transform: Transform, w: Weights) -> None:
    """Check that ``labels @ weights`` are the mixed weights.

    This holds for transforms that mix networks as they are, with one share each. With one class for every network of
    the batch and of the pool, a label says which networks a mixture is made of.
    """
    __tracebackhide__ = True
    at, soft = _at(transform, w), torch.eye(len(w), dtype=w.dtype, device=w.device)
    draw = transform.sample(w, generator=generator())
    mixed = transform.apply(w, draw).flat
    expect(not mixed.equal(w.flat), f"{at}: expected mixed weights, got the networks as they were")
    _close(transform.apply_labels(soft, draw) @ w.flat, mixed, f"{at}, labels of the mixture")
    pool = networks(w.spec, w.dtype, w.device, seed=9)
    every = torch.eye(len(w) + len(pool), dtype=w.dtype, device=w.device)
    called, labels = transform(w, every[: len(w)], generator=generator(), pool=(pool, every[len(w) :]))
    _close(labels @ torch.cat([w.flat, pool.flat]), called.flat, f"{at}, labels of the mixture with a pool")


def _at(transform: Transform, w: Weights) -> str:
    precision = "" if w.dtype == torch.float64 else f" in {str(w.dtype).removeprefix('torch.')}"
    return f"{transform!r} on {w.spec}{precision}"


def _close(found: Tensor, expected: Tensor, what: str) -> None:
    __tracebackhide__ = True
    expect(found.shape == expected.shape, f"{what}: expected shape {list(expected.shape)}, got {list(found.shape)}")
    allowed = TOLERANCE[expected.dtype] * (1 + expected.abs())
    difference = (found - expected).abs()
    largest = float(difference.max()) if difference.numel() else 0.0
    expect(bool((difference <= allowed).all()), f"{what}: largest difference {largest:.3e}")
