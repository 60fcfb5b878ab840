"""The usual architectures as specs: multi-layer perceptrons and SIRENs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weightspace._activation import ACTIVATIONS, LINEAR
from weightspace._spec import Axis, Init, NetSpec, Param


def _chain(
    widths: Sequence[int], activations: Sequence[str], omegas: Sequence[float], shift: float, init: Init, bias: bool
) -> NetSpec:
    for name in activations:  # an axis may do without, or say 'other'; a hidden layer of a chain may not
        if name != LINEAR.name and name not in ACTIVATIONS:
            expected = sorted([*ACTIVATIONS, LINEAR.name])
            raise ValueError(f"unknown activation: expected one of {expected}, got {name!r}")
    last = len(widths) - 1
    names = ["in", *(f"h{i}" for i in range(1, last)), "out"]
    axes = [
        Axis(name, size, activations[i - 1], omegas[i - 1]) if 0 < i < last else Axis(name, size)
        for i, (name, size) in enumerate(zip(names, widths, strict=True))
    ]
    params = []
    for i in range(last):
        params.append(Param(f"{i}.weight", (names[i + 1], names[i])))
        if bias:
            params.append(Param(f"{i}.bias", (names[i + 1],), "bias"))
    return NetSpec(tuple(axes), tuple(params), output_shift=shift, init=init)


def _per_layer(name: str, value: Any, count: int) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name}: expected one value or one for each of the {count} hidden layers, got {len(value)}")
    return list(value)


def _widths(widths: Sequence[int]) -> None:
    if len(widths) < 2:
        raise ValueError(f"expected at least an input and an output width, got {widths}")


def mlp(
    *widths: int,
    activation: str | Sequence[str] = "relu",
    output_shift: float = 0.0,
    init: Init = "torch",
    bias: bool = True,
) -> NetSpec:
    """A multi-layer perceptron with parameters ``"0.weight"``, ``"0.bias"``, ``"1.weight"``, ...

    Args:
        widths: input, hidden and output widths.
        activation: one name, or one for each hidden layer; ``"linear"`` for none.
        output_shift: constant added to the output.
        init: see :func:`siren`; ``"torch"`` is ``nn.Linear``'s own.
        bias: whether the layers have biases.

    Raises:
        TypeError: for an output shift that is no number.
        ValueError: for an unknown activation (or none), fewer than two widths or a width below one.

    Example:
        >>> mlp(2, 64, 64, 3, activation="relu").num_params
        4547
    """
    _widths(widths)
    count = len(widths) - 2
    names = _per_layer("activation", activation, count)
    return _chain(widths, names, [1.0] * count, output_shift, init, bias)


def siren(
    *widths: int,
    omega: float | Sequence[float] = 30.0,
    output_shift: float | None = None,
    init: Init = "dws",
    bias: bool = True,
) -> NetSpec:
    r"""A SIREN, ``x -> W_L sin(omega (... sin(omega (W_1 x + b_1)) ...)) + b_L + output_shift``.

    Two conventions are in use, and zoos made with one cannot be read as the other; the spec records which:

    ========  ==========================================  =============================  ============
    ``init``  weights                                     biases                         output shift
    ========  ==========================================  =============================  ============
    "dws"     all sine layers U(+-sqrt(6/in)/omega),      sine layers 0,                 0.5
              last layer U(+-1/sqrt(in))                  last layer U(+-1/sqrt(in))
    "siren"   first layer U(+-1/in), all others           U(+-1/sqrt(in))                0
              U(+-sqrt(6/in)/omega), the last one too
    "torch"   U(+-1/sqrt(in)), as ``nn.Linear``           U(+-1/sqrt(in))                0
    ========  ==========================================  =============================  ============

    Args:
        widths: input, hidden and output widths.
        omega: frequency of the sines: one, or one for each hidden layer.
        output_shift: constant added to the output; by default what the convention has.
        init: the convention.
        bias: whether the layers have biases.

    Raises:
        TypeError: for an omega or output shift that is no number.
        ValueError: for fewer than two widths, a width below one, a non-positive omega or an unknown convention.

    Example:
        >>> spec = siren(2, 32, 32, 1, omega=30.0, output_shift=0.5)
        >>> [(p.name, p.axes) for p in spec.params][:2]
        [('0.weight', ('h1', 'in')), ('0.bias', ('h1',))]

    Reference:
        Sitzmann et al., *Implicit Neural Representations with Periodic Activation Functions*, 2020, section 3.2
        ("siren"); the class released with Navon et al., *Equivariant Architectures for Learning in Deep Weight
        Spaces*, 2023 ("dws").
    """
    _widths(widths)
    count = len(widths) - 2
    shift = (0.5 if init == "dws" else 0.0) if output_shift is None else output_shift
    return _chain(widths, ["sine"] * count, _per_layer("omega", omega, count), shift, init, bias)
