"""The contract of every model on weights: a new model is checked by one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from weightspace._architectures import mlp
from weightspace._random import seeded
from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights
from weightspace.models import WeightModel
from weightspace.testing._compare import expect
from weightspace.testing._model_checks import (
    check_declarations,
    check_gradients,
    check_no_more,
    check_output,
    check_precision,
    check_refusals,
    check_rows,
    check_state,
    check_storage,
    check_symmetry,
    where,
)
from weightspace.testing._random import random_weights
from weightspace.testing._specs import chains, convolutional

BATCH = 6

Make = Callable[[NetSpec], WeightModel]


def check_model(
    make: Make, spec: NetSpec | None = None, *, device: torch.device | str = "cpu", exact: bool = True
) -> None:
    """Check a model on weights against the contract that every model of the library keeps.

    The checks, on networks drawn at random: the model declares what it is, and gives outputs of that kind; it commutes
    with the group that it declares, and not with the next larger one; it refuses networks of another spec, empty
    batches, features, tensors, finer dtypes, NaN and infinity; it computes in float64 when cast; in evaluation mode an
    output depends on its own network alone and on no random numbers; every weight of the networks is read and every
    parameter learns; inputs are not written; another copy that loads its ``state_dict`` gives the same outputs, and so
    does the model that :func:`weightspace.models.load_model` reads back, where the model can be saved; and it reads the
    specs that its class declares, and no others.

    Args:
        make: makes the model for a spec: a class, or a function such as
            ``lambda spec: MyModel(spec, 3, hidden=8)``.
        spec: the networks to read; by default six small specs of different kinds.
        device: where the model runs.
        exact: whether the declared group is the largest one. A wrapper may declare less than what holds.

    Raises:
        AssertionError: if a check fails, naming the model, the networks and what was found.
        TypeError: for something that cannot be called, and a spec other than a ``NetSpec``.

    Example:
        >>> import weightspace as ws
        >>> ws.testing.check_model(lambda spec: ws.models.MLP(spec, 3, hidden=8), ws.siren(2, 4, 1))
        >>> class Pretender(ws.models.MLP):
        ...     equivariance = "permutation"
        >>> ws.testing.check_model(lambda spec: Pretender(spec, 3, hidden=8), ws.siren(2, 4, 1))
        Traceback (most recent call last):
        AssertionError: Pretender on siren(2-4-1, omega=30): invariance (permutation): largest difference ...
    """
    __tracebackhide__ = True
    if not callable(make) or isinstance(make, nn.Module):
        raise TypeError(f"make: expected a function that makes a model for a spec, got {type(make).__name__}")
    if spec is not None:
        check_spec(spec)
    idle = None
    for known in chains() if spec is None else (spec,):
        found = check_contract(make, known, device=device, exact=exact)
        idle = found if idle is None else idle & found
    expect(not idle, f"{where(made(make, spec or chains()[0]))}: expected all parameters to learn, got none for {idle}")
    if spec is None:
        check_reads(make)


def check_contract(make: Make, spec: NetSpec, *, device: torch.device | str = "cpu", exact: bool = True) -> set[str]:
    """Check everything that concerns one spec; returns the names of parameters that do not learn from its networks."""
    __tracebackhide__ = True
    model = made(make, spec).to(device)
    check_declarations(model, spec)
    w = networks(spec).to(device)
    check_output(model, w)
    check_symmetry(model)
    if exact:
        check_no_more(model)
    check_refusals(model, w)
    check_precision(model, w)
    check_rows(model, w)
    check_state(model, made(make, spec, seed=1).to(device), w)
    check_storage(model, w)
    return check_gradients(model, w)


def networks(spec: NetSpec, batch: int = BATCH, seed: int = 1, dtype: torch.dtype = torch.float32) -> Weights:
    """Draw the networks that a check runs on."""
    return random_weights(spec, batch, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def made(make: Make, spec: NetSpec, seed: int = 0) -> WeightModel:
    """Make a model, with statistics of networks in its normalisation."""
    __tracebackhide__ = True
    with seeded(seed):
        model = make(spec)
    expect(
        isinstance(model, WeightModel),
        f"expected make(spec) to return a ws.models.WeightModel, got {type(model).__name__}",
    )
    normalize = getattr(model, "normalize", None)
    if isinstance(normalize, nn.Module):
        normalize.fit(networks(spec, 20, seed=9))  # pyright: ignore[reportCallIssue]
    return model


def check_reads(make: Make) -> None:
    """Check that specs which the class declares to read are read, and others are refused.

    A wrapper reads what the models in it read.
    """
    __tracebackhide__ = True
    declared = {part.reads for part in made(make, chains()[0]).modules() if isinstance(part, WeightModel)}
    reads = next(one for one in ("chain", "hidden", "any") if one in declared)
    allowed = {"chain": (False, False), "hidden": (True, False), "any": (True, True)}[reads]
    for spec, readable in zip((convolutional(), mlp(2, 3)), allowed, strict=True):
        at = f"reads={reads!r}, {spec}"
        try:
            model = made(make, spec)
        except ValueError as error:
            expect(not readable, f"{at}: expected a model, got ValueError: {error}")
            expect("expected" in str(error), f"{at}: expected an error that says what was expected, got {error}")
        else:
            expect(readable, f"{at}: expected ValueError, got {type(model).__name__}")
            check_output(model, networks(spec))
