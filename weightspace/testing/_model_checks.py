"""The single checks of the contract of models: each takes a model and networks, and raises ``AssertionError``."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from weightspace._random import randn, seeded
from weightspace._spec import NetSpec
from weightspace._symmetry import GROUPS, Group
from weightspace._weights import Weights
from weightspace.models import WeightModel, load_model, save_model
from weightspace.models._model import Output, Reads, Track
from weightspace.testing._assert import assert_equivariant, equivariance_error
from weightspace.testing._compare import expect

EXACT = 1e-8
"""The largest error in float64 that counts as rounding."""


def check_declarations(model: WeightModel, spec: NetSpec) -> None:
    """Check that the model states what it is, in the words that the library reads."""
    __tracebackhide__ = True
    at = where(model, spec)
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
    at, before, out = where(model), w.flat.clone(), model(w)
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
        raise AssertionError(f"{where(model)}: {error}") from None


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
        f"{where(model)}: expected equivariance={model.equivariance!r} to be the largest group, got one that commutes "
        f"with {beyond!r} too; declare it, or pass exact=False",
    )


def _adds(spec: NetSpec, group: Group) -> bool:
    """Return whether a group has elements for this spec that no smaller group has."""
    if group == "permutation":
        return any(axis.size > 1 for axis in spec.hidden)
    if group == "full":
        phases = any(axis.symmetry.periodic and spec.bias_of(axis.name) is not None for axis in spec.hidden)
        return phases or bool(spec.linear)
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
        at = f"{where(model)}: expected {kind.__name__} for {what}"
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
    expect(single.dtype == torch.float32, f"{where(model)}: expected outputs in float32, got {single.dtype}")
    double = _values(model.double()(w.to(torch.float64)))
    expect(double.dtype == torch.float64, f"{where(model)}, cast to float64: expected float64, got {double.dtype}")
    _close(single.double(), double, f"{where(model)}, float32 and float64", 1e-3)


def check_rows(model: WeightModel, w: Weights) -> None:
    """Check that in evaluation mode an output depends on its own network alone, and on no random numbers."""
    __tracebackhide__ = True
    model = copy.deepcopy(model).eval()
    state, whole = torch.random.get_rng_state(), _values(model(w))
    still = torch.random.get_rng_state().equal(state)
    expect(still, f"{where(model)}: expected evaluation without random numbers, got some from the global stream")
    for i in range(len(w)):
        _close(_values(model(w[i])), whole[i : i + 1], f"{where(model)}, network {i} alone and in a batch", 1e-5)


def check_gradients(model: WeightModel, w: Weights) -> set[str]:
    """Check that every parameter of the networks is read; returns the model's parameters that got no gradient.

    A parameter may be idle on networks of one kind, such as the bias of a function whose odd part alone is taken.
    """
    __tracebackhide__ = True
    model, at = copy.deepcopy(model), where(model)
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
    expect(same, f"{where(model)}: expected a copy that loads the state_dict to give the same outputs, got others")


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
            raise AssertionError(f"{where(model)}: expected the saved model to come back, got {error}") from error
    same = type(again) is type(model) and _values(again(w)).equal(_values(model(w)))
    expect(same, f"{where(model)}: expected the saved model to come back with the same outputs, got others")


def _values(out: Any) -> Tensor:
    return (out.flat if isinstance(out, Weights) else out).detach()


def where(model: WeightModel, spec: NetSpec | None = None) -> str:
    return f"{type(model).__name__} on {model.spec if spec is None else spec}"


def _close(found: Tensor, expected: Tensor, what: str, tolerance: float) -> None:
    __tracebackhide__ = True
    difference = (found - expected).abs()
    close = bool((difference <= tolerance * (1 + expected.abs())).all())
    expect(close, f"{what}: largest difference {float(difference.max()):.3e}, allowed {tolerance:.0e}")
