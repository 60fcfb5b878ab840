"""The activations of the CPU kernel: formulas from a vector ``z`` to the vectors ``f(z)`` and ``f'(z)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from weightspace._activation import LEAKY_SLOPE
from weightspace.fitting.kernels._cpu_llvm import Value, clip, fma, where_positive

_ROUND = 12582912.0  # 1.5 * 2**23: a number added to it has its nearest whole number in the lowest bits


def _coefficients(function: Callable[[Any], Any], degree: int, end: float) -> list[float]:
    """Return a polynomial through the Chebyshev points of [0, end], lowest power first."""
    fit: Any = Chebyshev.interpolate(function, degree, domain=[0.0, end])
    return [float(c) for c in fit.convert(kind=Polynomial).coef]


# sin(pi f) / f and cos(pi f) in powers of f^2, |f| <= 1/2: 7e-9 and 2e-10 from the functions
_SIN = _coefficients(lambda u: math.pi * np.sinc(np.sqrt(u)), 4, 0.25)
_COS = _coefficients(lambda u: np.cos(math.pi * np.sqrt(u)), 5, 0.25)
_EXP = [1 / math.factorial(n) for n in range(8)]

Formula = Callable[[Value], tuple[Any, Any]]
"""A map from a vector ``z`` to the vectors ``f(z)`` and ``f'(z)``."""


def _polynomial(coefficients: Sequence[Any], x: Value) -> Value:
    """Evaluate a polynomial by Horner's rule, lowest power first."""
    out = x.like(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        out = fma(out, x, c)
    return out


def _sine_and_cosine(z: Value, turns: Any, sin: Sequence[Any], cos: Sequence[Any]) -> tuple[Value, Value]:
    """Return sine and cosine of ``pi turns z``, by one reduction to the nearest half turn and two polynomials."""
    shifted = fma(z, turns, _ROUND)
    rest = fma(z, turns, -(shifted - _ROUND))
    sign = shifted.bits() << 31  # of an odd number of half turns
    square = rest * rest
    sine, cosine = rest * _polynomial(sin, square), _polynomial(cos, square)
    return (sine.bits() ^ sign).floats(), (cosine.bits() ^ sign).floats()


def _exp(x: Value) -> Value:
    x = clip(x, -87.0, 88.0)
    shifted = fma(x, 1 / math.log(2), _ROUND)
    whole = shifted - _ROUND
    high = float(np.float32(0.693359375))  # log 2 to nine bits, whose products with whole numbers are exact
    rest = fma(whole, high - math.log(2), fma(whole, -high, x))
    return (_polynomial(_EXP, rest).bits() + (shifted.bits() << 23)).floats()


def sine(omega: Any, turns: Any) -> Formula:
    """Return the formula of ``sin(omega z)``; ``turns`` is ``omega / pi``."""
    slopes = [c * omega for c in _COS]  # the factor omega of the derivative goes into the coefficients
    return lambda z: _sine_and_cosine(z, turns, _SIN, slopes)


def _cosine(omega: Any, turns: Any) -> Formula:
    slopes = [c * -omega for c in _SIN]

    def formula(z: Value) -> tuple[Value, Value]:
        slope, value = _sine_and_cosine(z, turns, slopes, _COS)
        return value, slope

    return formula


def _leaky(slope_below: float) -> Formula:
    def formula(z: Value) -> tuple[Value, Value]:
        slope = where_positive(z, 1.0, slope_below)
        return slope * z, slope

    return formula


def _tanh(z: Value) -> tuple[Value, Value]:
    value = 1.0 - 2.0 / (_exp(z + z) + 1.0)
    return value, 1.0 - value * value


def _gaussian(z: Value) -> tuple[Value, Value]:
    value = _exp(-(z * z))
    return value, -2.0 * z * value


def _sigmoid(z: Value) -> tuple[Value, Value]:
    value = 1.0 / (1.0 + _exp(-z))
    return value, value * (1.0 - value)


def _silu(z: Value) -> tuple[Value, Value]:
    gate = 1.0 / (1.0 + _exp(-z))
    return z * gate, gate * fma(z, 1.0 - gate, 1.0)


def formulas(omega: Any, turns: Any) -> dict[str, Formula]:
    """Return the formula of every activation of the kernels, by its name in the activation table."""
    return {
        "none": lambda z: (z, z.like(1.0)),
        "sine": sine(omega, turns),
        "cosine": _cosine(omega, turns),
        "relu": _leaky(0.0),
        "leaky_relu": _leaky(LEAKY_SLOPE),
        "tanh": _tanh,
        "gaussian": _gaussian,
        "sigmoid": _sigmoid,
        "silu": _silu,
    }
