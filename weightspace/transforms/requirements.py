"""Conditions that transforms put on a spec: what they require of the networks, checked before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from weightspace._activation import names_where
from weightspace._spec import NetSpec


@dataclass(frozen=True)
class Requirement:
    """A condition on a spec, with the words of the error where it does not hold.

    The functions of a requirement that an instance holds should be functions of a module or partials of them: lambdas
    cannot be pickled, and transforms travel to other processes.

    Args:
        holds: returns whether the spec meets the condition.
        expected: a description of what is expected.
        remedy: advice on what to do where the condition does not hold.
        got: returns a description of what the spec has instead, by default its short form.

    Example:
        >>> import weightspace as ws
        >>> HIDDEN.holds(ws.siren(2, 8, 1)), HIDDEN.holds(ws.mlp(2, 1))
        (True, False)
    """

    holds: Callable[[NetSpec], bool]
    expected: str
    remedy: str
    got: Callable[[NetSpec], str] = repr


@lru_cache(maxsize=4096)
def holds(requirement: Requirement, spec: NetSpec) -> bool:
    """Return whether the spec meets the requirement; answers are remembered, so asking again costs nothing."""
    return requirement.holds(spec)


def _has_hidden_axis(spec: NetSpec) -> bool:
    return bool(spec.hidden)


def _commutes(spec: NetSpec, scale: str) -> bool:
    return all(axis.symmetry.scale == scale for axis in spec.hidden)


def _has_linear_axis(spec: NetSpec) -> bool:
    return bool(spec.linear)


def _is_periodic(spec: NetSpec) -> bool:
    return all(axis.symmetry.periodic for axis in spec.hidden)


def _has_hidden_biases(spec: NetSpec) -> bool:
    return {axis.name for axis in spec.hidden} <= {p.produces for p in spec.params if p.kind == "bias"}


def _reads_linearly(spec: NetSpec) -> bool:
    return all(len(p.axes) == 2 for p in spec.params if p.consumes == spec.input)


def _has_input_biases(spec: NetSpec) -> bool:
    biased = {p.produces for p in spec.params if p.kind == "bias"}
    return all(p.produces in biased for p in spec.params if p.consumes == spec.input)


def _counts_inputs(spec: NetSpec, least: int, most: int | None) -> bool:
    return least <= spec.in_features <= (spec.in_features if most is None else most)


def _dimension(spec: NetSpec) -> str:
    return f"a {spec.in_features}-D INR"


_PERMUTE = "use Permute, which every activation allows"

HIDDEN = Requirement(_has_hidden_axis, "at least one hidden axis", "a linear map has no such symmetry")
SIGNS = Requirement(
    partial(_commutes, scale="sign"),
    f"activations that commute with signs ({names_where(scale='sign')}) on every hidden axis",
    _PERMUTE,
)
POSITIVE_SCALES = Requirement(
    partial(_commutes, scale="positive"),
    f"activations that commute with positive factors ({names_where(scale='positive')}) on every hidden axis",
    _PERMUTE,
)
PERIODIC = Requirement(
    _is_periodic, f"periodic activations ({names_where(periodic=True)}) on every hidden axis", _PERMUTE
)
LINEAR_AXIS = Requirement(
    _has_linear_axis, "at least one axis between two linear maps, such as the heads of attention", _PERMUTE
)
HIDDEN_BIAS = Requirement(
    _has_hidden_biases, "a bias on every hidden axis", "a phase lives in the bias; make the network with bias=True"
)
LINEAR_INPUT = Requirement(
    _reads_linearly, "linear maps of the input coordinates", "a convolution reads channels, not coordinates"
)
INPUT_BIAS = Requirement(_has_input_biases, "a bias behind every map of the input", "make the network with bias=True")


@lru_cache(maxsize=256)
def input_count(least: int, most: int | None, remedy: str) -> Requirement:
    """Require from ``least`` to ``most`` input coordinates; no upper bound where ``most`` is ``None``."""
    words = f"at least {least}" if most is None else f"{least}" if least == most else f"{least} to {most}"
    return Requirement(
        partial(_counts_inputs, least=least, most=most),
        f"{words} input coordinate{'s' if words not in ('1', 'at least 1') else ''}",
        remedy,
        _dimension,
    )
