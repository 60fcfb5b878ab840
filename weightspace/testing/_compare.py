"""Comparisons of outputs, and the words of a failure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from weightspace._random import rand
from weightspace._spec import NetSpec


def expect(condition: bool, message: str) -> None:
    """Raise ``AssertionError`` with the message unless the condition holds."""
    __tracebackhide__ = True
    if not condition:
        raise AssertionError(message)


def points(spec: NetSpec, generator: torch.Generator | None = None, count: int = 64) -> Tensor:
    """Draw points of the input, uniform in [-1, 1]; without a generator they are always the same."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return 2 * rand((count, spec.in_features), generator=generator, dtype=torch.float64) - 1


def tolerance(*dtypes: torch.dtype) -> float:
    """Return the square root of the coarsest machine epsilon: 3.5e-4 in float32, 1.5e-8 in float64."""
    return math.sqrt(max(torch.finfo(dtype).eps for dtype in dtypes))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two outputs compared network by network: the largest difference and the largest expected entry of each."""

    what: str
    difference: Tensor
    scale: Tensor

    @classmethod
    def of(cls, found: Tensor, expected: Tensor, what: str) -> Comparison:
        """Compare outputs ``[batch, ...]``; raises ``AssertionError`` for different shapes, NaN and infinity."""
        __tracebackhide__ = True
        expect(
            found.shape == expected.shape,
            f"{what}: expected shape {list(expected.shape)}, got {list(found.shape)}",
        )
        found, expected = (t.double().reshape(t.shape[0], -1) for t in (found, expected))
        finite = bool(torch.isfinite(found).all() and torch.isfinite(expected).all())
        expect(finite, f"{what}: expected finite numbers, got nan or inf")
        return cls(what, (found - expected).abs().amax(1), expected.abs().amax(1))

    @property
    def error(self) -> float:
        """The largest difference, each relative to one plus the largest expected entry of its network."""
        return float((self.difference / (1 + self.scale)).max())

    def assert_within(self, atol: float, rtol: float) -> None:
        """Raise ``AssertionError`` where a difference exceeds ``atol + rtol *`` the network's largest entry."""
        __tracebackhide__ = True
        allowed = atol + rtol * self.scale
        row = int((self.difference - allowed).argmax())
        expect(
            not bool((self.difference > allowed).any()),
            f"{self.what}: largest difference {float(self.difference.max()):.3e}; network {row} differs by "
            f"{float(self.difference[row]):.3e}, allowed {float(allowed[row]):.3e}",
        )
