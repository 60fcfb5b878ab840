"""The effect of each operator on a sequential network under trace: the rules behind ``spec_of``.

A value is either a *point* (the input, or what leaves an activation) or a monomial ``factor * z ** power + shift`` of
the last affine map's output ``z``. An operator without a rule for what it is given is refused by name.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import nn

from weightspace._activation import ACTIVATIONS, LEAKY_SLOPE


@dataclass(frozen=True)
class Affine:
    """One linear layer, by the names of its parameters, and the activation that follows."""

    weight: str
    bias: str | None
    activation: str | None = None
    omega: float = 1.0


@dataclass(frozen=True)
class Value:
    """The value of a graph node: a point, or ``factor * z ** power + shift`` of the last layer's output ``z``."""

    layers: tuple[Affine, ...] = ()
    linear: bool = False
    factor: float = 1.0
    power: float = 1.0
    shift: float = 0.0

    @property
    def plain(self) -> bool:
        return self.linear and (self.factor, self.power, self.shift) == (1.0, 1.0, 0.0)


@dataclass(frozen=True)
class Parameter:
    """A parameter of the module, by its state_dict key."""

    name: str


class Refused(Exception):
    """Why a network cannot be read, and how many operators were read before."""

    read = 0


def refuse(reason: str) -> NoReturn:
    raise Refused(reason)


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _split(a: Any, b: Any, name: str) -> tuple[Value, float]:
    """The value and the constant of a product or sum of the two, in whichever order they come."""
    for value, constant in ((a, b), (b, a)):
        if isinstance(value, Value) and _number(constant):
            return value, float(constant)
    if isinstance(a, Value) and isinstance(b, Value):
        refuse(f"{name} of two values: skip connections and products have other symmetries than a chain")
    refuse(f"{name} with something other than a Python number")


def _monomial(value: Any, name: str) -> Value:
    if not isinstance(value, Value):
        refuse(f"{name} on something other than the network's values")
    if not value.linear:
        refuse(f"{name} on {'the input' if not value.layers else 'what leaves an activation'}")
    if value.shift:
        refuse(f"{name} after the addition of a constant; only a constant added to the output is recorded")
    return value


def _mul(input: Any, other: Any) -> Value:
    if isinstance(input, Value) and isinstance(other, Value) and input.linear and input.layers == other.layers:
        a, b = _monomial(input, "mul"), _monomial(other, "mul")
        return replace(a, factor=a.factor * b.factor, power=a.power + b.power)
    value, constant = _split(input, other, "mul")
    return replace(_monomial(value, "mul"), factor=value.factor * constant)


def _div(input: Any, other: Any) -> Value:
    if not isinstance(input, Value) or not _number(other) or other == 0:
        refuse("div of a value by something other than a non-zero Python number")
    return replace(_monomial(input, "div"), factor=input.factor / float(other))


def _pow(input: Any, exponent: Any) -> Value:
    if not isinstance(input, Value) or not _number(exponent) or exponent != 2:
        refuse("pow of a value with an exponent other than 2")
    return replace(_monomial(input, "pow"), factor=input.factor**2, power=input.power * 2)


def _add(input: Any, other: Any) -> Value:
    value, constant = _split(input, other, "add")
    if not (value.linear and value.factor == value.power == 1.0):
        refuse("add of a constant anywhere but to the output of the last linear layer")
    return replace(value, shift=value.shift + constant)


def _sub(input: Any, other: Any) -> Value:
    if not isinstance(input, Value):
        refuse("sub of a value from something else")
    return _add(input, other if isinstance(other, Value) or not _number(other) else -other)


def _linear(input: Any, weight: Any, bias: Any = None) -> Value:
    if not isinstance(input, Value):
        refuse("linear on something other than the network's values")
    if not isinstance(weight, Parameter) or not (bias is None or isinstance(bias, Parameter)):
        refuse("linear with weights that are computed, not parameters of the module")
    if input.linear and input.layers:
        what = "activation" if input.plain else "activation of the table"
        refuse(
            f"no {what} between {input.layers[-1].weight!r} and {weight.name!r}; "
            "a product of linear maps has a larger group than a hidden layer: merge them into one"
        )
    return Value((*input.layers, Affine(weight.name, None if bias is None else bias.name)), linear=True)


def _activate(value: Value, name: str, omega: float = 1.0) -> Value:
    layer = replace(value.layers[-1], activation=name, omega=omega)
    return Value((*value.layers[:-1], layer))


def _plain(name: str) -> Callable[..., Value]:
    """The rule of an activation that takes ``z`` itself."""

    def rule(input: Any) -> Value:
        value = _monomial(input, name)
        if not value.plain:
            refuse(f"{name} of {value.factor:g} * z ** {value.power:g}; only {name}(z) is in the activation table")
        return _activate(value, name)

    return rule


def _periodic(name: str, even: bool) -> Callable[..., Value]:
    def rule(input: Any) -> Value:
        value = _monomial(input, name)
        omega = abs(value.factor) if even else value.factor
        if value.power != 1 or not omega > 0:
            refuse(f"{name} of {value.factor:g} * z ** {value.power:g}; expected {name}(omega * z) with omega > 0")
        return _activate(value, name, omega)

    return rule


def _exp(input: Any) -> Value:
    value = _monomial(input, "exp")
    if (value.factor, value.power) != (-1.0, 2.0):
        refuse(f"exp of {value.factor:g} * z ** {value.power:g}; only exp(-z ** 2) is in the activation table")
    return _activate(value, "gaussian")


def _leaky_relu(input: Any, negative_slope: float = LEAKY_SLOPE) -> Value:
    if negative_slope != LEAKY_SLOPE:
        refuse(f"leaky_relu with slope {negative_slope}; the activation table has {LEAKY_SLOPE}")
    return _plain("leaky_relu")(input)


def _gelu(input: Any, approximate: str = "none") -> Value:
    if approximate != "none":
        refuse(f"gelu with approximate={approximate!r}; the activation table has the exact one")
    return _plain("gelu")(input)


def _dropout(input: Any, p: float = 0.5, training: bool = True) -> Any:
    if training and p > 0:
        refuse(f"dropout with p={p} in training mode; call module.eval() first")
    return input


def _identity(input: Any) -> Any:
    return input


_PLAIN = ("relu", "tanh", "silu", "sigmoid")  # activations whose spellings take no settings
# The argument names of a rule are torch's, in torch's order.
_RULES: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "mul": _mul,
    "div": _div,
    "add": _add,
    "sub": _sub,
    "pow": _pow,
    "square": lambda input: _pow(input, 2),
    "neg": lambda input: _mul(input, -1.0),
    "sin": _periodic("sine", even=False),
    "cos": _periodic("cosine", even=True),
    "exp": _exp,
    "leaky_relu": _leaky_relu,
    "gelu": _gelu,
    "dropout": _dropout,
    "identity": _identity,
    "requires_grad": lambda input, requires_grad=True: input,
    **{name: _plain(name) for name in _PLAIN},
}
_SPELLINGS: dict[str, tuple[Any, ...]] = {
    "linear": (F.linear,),
    "mul": (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "multiply"),
    "div": (operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide, "div", "divide"),
    "add": (operator.add, operator.iadd, torch.add, "add"),
    "sub": (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "subtract"),
    "pow": (operator.pow, torch.pow, "pow"),
    "square": (torch.square, "square"),
    "neg": (operator.neg, torch.neg, torch.negative, "neg"),
    "sin": ACTIVATIONS["sine"].spellings,
    "cos": ACTIVATIONS["cosine"].spellings,
    "exp": (torch.exp, "exp"),
    **{name: ACTIVATIONS[name].spellings for name in (*_PLAIN, "leaky_relu", "gelu")},
    "dropout": (F.dropout, nn.Dropout),
    "identity": (torch.clone, torch.detach, nn.Identity, "clone", "detach", "contiguous"),
    "requires_grad": ("requires_grad_",),
}
_RULE_OF: dict[Any, str] = {key: rule for rule, keys in _SPELLINGS.items() for key in keys}


def apply(key: Any, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Find the operator's rule, put the arguments in their places, and apply it."""
    if key not in _RULE_OF:
        refuse(label)
    rule = _RULES[_RULE_OF[key]]
    try:
        bound = inspect.signature(rule).bind(*args, **{n: v for n, v in kwargs.items() if n != "inplace"})
    except TypeError:
        refuse(f"{label} with {len(args)} positional arguments and {sorted(kwargs)}")
    return rule(*bound.args, **bound.kwargs)


def apply_module(module: nn.Module, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same for a module of torch.nn, whose settings count as keyword arguments."""
    label, key = f"{type(module).__name__} ({name!r})", type(module)
    if key is nn.Linear:
        bias = None if module.bias is None else Parameter(f"{name}.bias")
        return apply(F.linear, label, args, {**kwargs, "weight": Parameter(f"{name}.weight"), "bias": bias})
    names = list(inspect.signature(_RULES[_RULE_OF[key]]).parameters)[1:] if key in _RULE_OF else []
    return apply(key, label, args, {**kwargs, **{n: getattr(module, n) for n in names}})
