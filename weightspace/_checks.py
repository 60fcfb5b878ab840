"""Checks at public doors: another type is a ``TypeError``, a number out of range a ``ValueError``."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import torch

MEANT = {
    **dict.fromkeys(("num_classes", "n_classes", "classes", "out_channels", "output_dim", "out_dim"), "out_features"),
    **dict.fromkeys(("hidden_dim", "hidden_size", "width", "channels", "dim"), "hidden"),
    **dict.fromkeys(("num_layers", "n_layers", "depth"), "layers"),
    **dict.fromkeys(("num_epochs", "n_epochs", "max_epochs"), "epochs"),
    **dict.fromkeys(("learning_rate", "step_size"), "lr"),
    **dict.fromkeys(("iterations", "num_steps", "n_steps"), "steps"),
    **dict.fromkeys(("augment", "augmentation", "augmentations"), "transform"),
}
"""Words that other libraries have for arguments of this one."""
WIDE = 10.0
"""Span of values from which on signals are taken to be of another range than one, such as pixels of 0 to 255."""


def number(
    name: str,
    value: Any,
    expected: str = "a finite number",
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return ``value`` as a float, if it is a finite real number within bounds.

    Args:
        name: what the number is, for the message.
        value: what came in.
        expected: what is allowed, in words, for the message.
        low: the least number allowed.
        high: the largest number allowed.
        above: a bound that the number must exceed.
        below: a bound that the number must not reach.

    Raises:
        TypeError: for something other than a real number; a bool and a string are none.
        ValueError: for NaN, infinity or a number out of range.

    Example:
        >>> number("lr", 1, "a number >= 0", low=0)
        1.0
        >>> number("lr", "1")
        Traceback (most recent call last):
        TypeError: lr: expected a finite number, got '1'; pass a plain int or float
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected {expected}, got {value!r}; pass a plain int or float")
    found = float(value)
    inside = (above is None or found > above) and (below is None or found < below)
    if not (math.isfinite(found) and low <= found <= high and inside):
        raise ValueError(f"{name}: expected {expected}, got {found}")
    return found


def probability(name: str, value: Any, expected: str = "a probability") -> float:
    """Return ``value`` as a float, if it is a number in [0, 1]."""
    return number(name, value, f"{expected} in [0, 1]", low=0, high=1)


def whole_number(name: str, value: Any, least: int | None = 1) -> int:
    """Return ``value`` as an int, if it is a whole number of at least ``least``.

    Raises:
        TypeError: for something other than an integer; a bool is none.
        ValueError: for one that is too small.

    Example:
        >>> whole_number("epochs", 3)
        3
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected a whole number, got {value!r}; pass a plain int")
    if least is not None and value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


def warn_if_wide(name: str, low: float, high: float) -> None:
    """Warn of signals whose range is far from one: the PSNR would say too much, and fits may diverge.

    Args:
        name: what they are, for the message.
        low: their least value.
        high: their largest value.
    """
    remedy = "divide them by their range" if high - low > WIDE else "bring them to [0, 1] or [-1, 1]"
    if high - low > WIDE or max(abs(high), abs(low)) > WIDE:
        warnings.warn(
            f"{name}: expected signals of range one, as PSNR in dB takes them to be, got values from {low:g} to "
            f"{high:g}; {remedy}",
            UserWarning,
            stacklevel=4,
        )


def check_keywords(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ``TypeError`` for a keyword that is not among the known ones, with the likeliest of them.

    Example:
        >>> check_keywords("DWSNet", ["num_classes"], ["out_features", "hidden"])
        Traceback (most recent call last):
        TypeError: DWSNet: expected some of ['out_features', 'hidden'], got 'num_classes'; did you mean 'out_features'?
    """
    names = list(known)
    for name in given:
        if name not in names:
            close = [own for own in (MEANT.get(name),) if own in names] or difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{where}: expected some of {names}, got {name!r}{hint}")


def check_generator(generator: Any) -> None:
    """Raise ``TypeError`` for anything but a ``torch.Generator``."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator: expected a torch.Generator, got {type(generator).__name__}; "
            "make one with torch.Generator().manual_seed(0)"
        )


def check_tensor(name: str, value: Any) -> None:
    """Raise ``TypeError`` for anything but a tensor."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(
            f"{name}: expected a tensor, got {type(value).__name__}; make it with torch.as_tensor({name.split()[-1]})"
        )
