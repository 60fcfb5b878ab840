"""The contract of every model on weights: a new model is checked by one call."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from weightspace._architectures import mlp
from weightspace._random import randn, seeded
from weightspace._spec import NetSpec, check_spec
from weightspace._symmetry import GROUPS, Group
from weightspace._weights import Weights
from weightspace.models import WeightModel, load_model, save_model
from weightspace.models._model import Output, Reads, Track
from weightspace.testing._assert import assert_equivariant, equivariance_error
from weightspace.testing._compare import expect
from weightspace.testing._random import random_weights
from weightspace.testing._specs import chains, convolutional

BATCH = 6
EXACT = 1e-8
"""The largest error in float64 that counts as rounding."""

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
    expect(not idle, f"{_at(made(make, spec or chains()[0]))}: expected all parameters to learn, got none for {idle}")
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


def check_declarations(model: WeightModel, spec: NetSpec) -> None:
    """Check that the model states what it is, in the words that the library reads."""
    __tracebackhide__ = True
    at = _at(model, spec)
    for name, allowed in (
        ("equivariance", GROUPS),
        ("track", get_args(Track)),
        ("reads", get_args(Reads)),
        ("output", get_args(Output)),
    ):
        found = getattr(model, name, None)
        expect(found in allowed, f"{at}: expected {name} to be one of {list(allowed)}, got {found!r}")
    expect(model.spec == spec, f"{at}: expected model.spec to be the spec it was made for, got {model.spec}")
    expect(isinstance(model.config, dict), f"{at}: expected config to be a dict, got {type(model.config).__name__}")


def check_output(model: WeightModel, w: Weights) -> None:
    """Check that outputs are of the declared kind, shape and device, and finite, and that the input is not written."""
    __tracebackhide__ = True
    at, before, out = _at(model), w.flat.clone(), model(w)
    channels = [model.out_features] if model.out_features > 1 or model.output != "weights" else []
    shape = [len(w), *([w.spec.num_params] if model.output == "weights" else []), *channels]
    kind = Weights if model.output == "weights" else Tensor
    expect(
        isinstance(out, kind), f"{at}: expected {kind.__name__} for output={model.output!r}, got {type(out).__name__}"
    )
    values = _values(out)
    expect(list(values.shape) == shape, f"{at}: expected outputs of shape {shape}, got {list(values.shape)}")
    expect(bool(torch.isfinite(values).all()), f"{at}: expected finite outputs, got nan or inf")
    expect(values.device == w.device, f"{at}: expected outputs on {w.device}, got {values.device}")
    if model.output == "embedding":
        _close(values.norm(dim=1), torch.ones_like(values[:, 0]), f"{at}, lengths of embeddings", 1e-5)
    expect(w.flat.equal(before), f"{at}: expected the input to stay as it is, got it written")


def check_symmetry(model: WeightModel) -> None:
    """Check that the model commutes with the group that it declares."""
    __tracebackhide__ = True
    if model.equivariance == "none":
        return
    try:
        assert_equivariant(model, model.spec, group=model.equivariance, atol=EXACT, rtol=EXACT)
    except AssertionError as error:
        raise AssertionError(f"{_at(model)}: {error}") from None


def check_no_more(model: WeightModel) -> None:
    """Check that the model does not commute with a group larger than it declares.

    Groups that add nothing to the declared one for this spec are passed over.
    """
    __tracebackhide__ = True
    beyond: Group | None = next(
        (g for g in GROUPS[GROUPS.index(model.equivariance) + 1 :] if _adds(model.spec, g)), None
    )
    if beyond is None:
        return
    error = equivariance_error(model, model.spec, group=beyond)
    expect(
        error > EXACT,
        f"{_at(model)}: expected equivariance={model.equivariance!r} to be the largest group, got one that commutes "
        f"with {beyond!r} too; declare it, or pass exact=False",
    )


def _adds(spec: NetSpec, group: Group) -> bool:
    """Return whether a group has elements for this spec that no smaller group has."""
    if group == "permutation":
        return any(axis.size > 1 for axis in spec.hidden)
    if group == "full":
        return any(axis.symmetry.periodic and spec.bias_of(axis.name) is not None for axis in spec.hidden)
    scale = {"signed": "sign", "scaled": "positive"}.get(group)
    return any(axis.symmetry.scale == scale for axis in spec.hidden)


def check_refusals(model: WeightModel, w: Weights) -> None:
    """Check that networks that the model cannot read are refused, by an error that says what it got."""
    __tracebackhide__ = True
    spoilt = [
        w.replace(w.flat.clone().index_fill(1, torch.tensor([3], device=w.device), bad))
        for bad in (torch.nan, torch.inf)
    ]
    other = replace(w.spec, output_shift=w.spec.output_shift + 1)
    cases: list[tuple[str, Any, type[Exception]]] = [
        ("networks of another spec", Weights(w.flat, other), ValueError),
        ("an empty batch", w[:0], ValueError),
        ("features with a channel axis", w.replace(w.flat[..., None]), ValueError),
        ("a plain tensor", w.flat, TypeError),
        ("weights of a finer dtype than the model's", w.to(torch.float64), TypeError),
        ("weights with NaN", spoilt[0], ValueError),
        ("weights with infinity", spoilt[1], ValueError),
    ]
    for what, given, kind in cases:
        at = f"{_at(model)}: expected {kind.__name__} for {what}"
        try:
            model(given)
        except kind as error:
            expect("got" in str(error), f"{at} that says what it got, got {str(error)!r}")
        except Exception as error:
            raise AssertionError(f"{at}, got {type(error).__name__}: {error}") from error
        else:
            raise AssertionError(f"{at}, got an output")


def check_precision(model: WeightModel, w: Weights) -> None:
    """Check that the model, cast to float64, gives float64 outputs close to those in float32."""
    __tracebackhide__ = True
    model = copy.deepcopy(model).eval()
    single = _values(model(w))
    expect(single.dtype == torch.float32, f"{_at(model)}: expected outputs in float32, got {single.dtype}")
    double = _values(model.double()(w.to(torch.float64)))
    expect(double.dtype == torch.float64, f"{_at(model)}, cast to float64: expected float64, got {double.dtype}")
    _close(single.double(), double, f"{_at(model)}, float32 and float64", 1e-3)


def check_rows(model: WeightModel, w: Weights) -> None:
    """Check that in evaluation mode an output depends on its own network alone, and on no random numbers."""
    __tracebackhide__ = True
    model = copy.deepcopy(model).eval()
    state, whole = torch.random.get_rng_state(), _values(model(w))
    still = torch.random.get_rng_state().equal(state)
    expect(still, f"{_at(model)}: expected evaluation without random numbers, got some from the global stream")
    for i in range(len(w)):
        _close(_values(model(w[i])), whole[i : i + 1], f"{_at(model)}, network {i} alone and in a batch", 1e-5)


def check_gradients(model: WeightModel, w: Weights) -> set[str]:
    """Check that every parameter of the networks is read; returns the model's parameters that got no gradient.

    A parameter may be idle on networks of one kind, such as the bias of a function whose odd part alone is taken.
    """
    __tracebackhide__ = True
    model, at = copy.deepcopy(model), _at(model)
    flat = w.flat.clone().requires_grad_()
    with seeded(0):
        returned = model(w.replace(flat))
    out = returned.flat if isinstance(returned, Weights) else returned
    target = torch.linspace(0, 1, out.numel(), dtype=out.dtype, device=out.device).view_as(out)
    (out - target).square().sum().backward()
    expect(flat.grad is not None, f"{at}: expected outputs that can be differentiated by the weights, got none")
    assert flat.grad is not None
    for name, value in w.replace(flat.grad).items():
        expect(bool(value.abs().max() > 0), f"{at}: expected {name!r} of the networks to be read, got no gradient")
    learned = [name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().max() > 0)]
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad} - set(learned)


def check_state(model: WeightModel, other: WeightModel, w: Weights) -> None:
    """Check that another copy of the model that loads its ``state_dict`` gives the same outputs."""
    __tracebackhide__ = True
    model, other = copy.deepcopy(model).eval(), copy.deepcopy(other).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += randn(parameter.shape, generator=generator, dtype=parameter.dtype, device=parameter.device)
    other.load_state_dict(model.state_dict())
    same = _values(other(w)).equal(_values(model(w)))
    expect(same, f"{_at(model)}: expected a copy that loads the state_dict to give the same outputs, got others")


def check_storage(model: WeightModel, w: Weights) -> None:
    """Check that a model that is saved comes back; models that cannot be saved are passed over."""
    __tracebackhide__ = True
    model = copy.deepcopy(model).eval()
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_model(model, folder)
        except TypeError:  # a class that cannot be imported could not be found again
            return
        try:
            again = load_model(folder).to(w.device).eval()
        except (TypeError, ValueError) as error:
            raise AssertionError(f"{_at(model)}: expected the saved model to come back, got {error}") from error
    same = type(again) is type(model) and _values(again(w)).equal(_values(model(w)))
    expect(same, f"{_at(model)}: expected the saved model to come back with the same outputs, got others")


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


def _values(out: Any) -> Tensor:
    return (out.flat if isinstance(out, Weights) else out).detach()


def _at(model: WeightModel, spec: NetSpec | None = None) -> str:
    return f"{type(model).__name__} on {model.spec if spec is None else spec}"


def _close(found: Tensor, expected: Tensor, what: str, tolerance: float) -> None:
    __tracebackhide__ = True
    difference = (found - expected).abs()
    close = bool((difference <= tolerance * (1 + expected.abs())).all())
    expect(close, f"{what}: largest difference {float(difference.max()):.3e}, allowed {tolerance:.0e}")
