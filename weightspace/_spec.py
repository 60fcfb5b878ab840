"""``NetSpec``: what a network is (named axes, parameters, activations), without a single tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from weightspace._activation import ACTIVATIONS, activation
from weightspace._checks import POSITIVE, number

SPEC_FORMAT = 1
Init = Literal["dws", "siren", "torch"]
INITS: tuple[str, ...] = ("dws", "siren", "torch")
Kind = Literal["weight", "bias", "norm"]
KINDS = {"weight": 2, "bias": 1, "norm": 1}
"""Each kind of parameter with the fewest axes that it names."""


@dataclass(frozen=True)
class Axis:
    """A named axis. It is *hidden*, that is, permutable, exactly when it carries an activation.

    Args:
        name: the name that parameters refer to.
        size: number of entries.
        activation: a name of the activation table, or ``"other"`` where permutations alone are proved (residual sums,
            norms), or ``None`` for inputs, outputs, kernel and position axes.
        omega: frequency of periodic activations, ``sin(omega * z)``; ignored by the others.
    """

    name: str
    size: int
    activation: str | None = None
    omega: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"axis {self.name!r}: expected a size of at least 1, got {self.size!r}")
        if self.activation is not None:
            activation(self.activation)
        omega = number(f"axis {self.name!r}", self.omega, "a positive omega", low=POSITIVE)
        object.__setattr__(self, "omega", omega)

    @property
    def hidden(self) -> bool:
        return self.activation is not None


@dataclass(frozen=True)
class Param:
    """A parameter and the names of its axes in torch's order.

    A ``"weight"`` produces its first axis and consumes its second; further axes (kernel, position) are carried
    along. A ``"bias"`` is added to the axis it names. A ``"norm"`` (scale, shift or running statistics of a
    normalisation) is permuted with the axis it names, and names none that has scales, signs or phases. Two parameters
    that share an axis name share its symmetry.

    Args:
        name: the parameter's name, distinct in the spec.
        axes: names of its axes.
        kind: ``"weight"``, ``"bias"`` or ``"norm"``.
        key: the key of the state dict that holds it, by default its name. Parameters with one key lie in one tensor,
            one after another along what is consumed (weights) or along the first axis: what reads a concatenation.
        folded: the tensor of the state dict has the axes after the produced one (a norm: all) folded into one, as a
            linear layer after a flatten.
    """

    name: str
    axes: tuple[str, ...]
    kind: Kind = "weight"
    key: str | None = None
    folded: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        if self.key == self.name:
            object.__setattr__(self, "key", None)

    @property
    def source(self) -> str:
        """The key of the state dict that holds this parameter."""
        return self.name if self.key is None else self.key

    @property
    def statistic(self) -> bool:
        """Whether this is a running mean or variance: measured on data, not learned."""
        return self.kind == "norm" and self.source.rpartition(".")[2] in ("running_mean", "running_var")

    @property
    def variance(self) -> bool:
        """Whether this is a running variance, which cannot be negative."""
        return self.kind == "norm" and self.source.rpartition(".")[2] == "running_var"

    @property
    def produces(self) -> str:
        return self.axes[0]

    @property
    def consumes(self) -> str | None:
        return self.axes[1] if self.kind == "weight" else None


@dataclass(frozen=True)
class Layer:
    """One affine map of a chain: ``produces = weight @ consumes + bias``. Derived from a spec, never stored."""

    weight: str
    bias: str | None
    consumes: str
    produces: str


@dataclass(frozen=True)
class NetSpec:
    """What a network is. Hashable, comparable, with a JSON round trip.

    Args:
        axes: all axes; those with an activation are hidden.
        params: the parameters in the order in which ``Weights.flat`` holds them.
        input: name of the input axis.
        output: name of the output axis.
        output_shift: constant added to the network's output (0.5 in the released SIREN class of Navon et al. 2023).
        init: the initialisation the network was made for, see :func:`siren`.

    Raises:
        ValueError: if a parameter names an unknown axis, or the same hidden axis twice, if names repeat, or if
            a hidden axis is produced by no parameter.

    Example:
        >>> spec = siren(2, 32, 32, 1)
        >>> spec.num_params, spec.shape("1.weight"), [a.name for a in spec.hidden]
        (1185, (32, 32), ['h1', 'h2'])
        >>> NetSpec.from_json(spec.to_json()) == spec
        True
    """

    axes: tuple[Axis, ...]
    params: tuple[Param, ...]
    input: str = "in"
    output: str = "out"
    output_shift: float = 0.0
    init: Init = "torch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        object.__setattr__(self, "params", tuple(self.params))
        shift = number("output_shift", self.output_shift, "a finite output shift")
        object.__setattr__(self, "output_shift", shift)
        _check(self)

    @cached_property
    def _axis(self) -> dict[str, Axis]:
        return {axis.name: axis for axis in self.axes}

    @cached_property
    def _param(self) -> dict[str, Param]:
        return {param.name: param for param in self.params}

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def axis(self, name: str) -> Axis:
        """The axis of that name."""
        if name not in self._axis:
            raise KeyError(f"no axis {name!r}: expected one of {[a.name for a in self.axes]}")
        return self._axis[name]

    def param(self, name: str) -> Param:
        """The parameter of that name."""
        if name not in self._param:
            raise KeyError(f"no parameter {name!r}: expected one of {[p.name for p in self.params]}")
        return self._param[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one parameter, in torch's order."""
        return tuple(self._axis[axis].size for axis in self.param(name).axes)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each parameter lies in the flat vector."""
        out, start = {}, 0
        for param in self.params:
            stop = start + math.prod(self.shape(param.name))
            out[param.name] = slice(start, stop)
            start = stop
        return out

    @cached_property
    def sources(self) -> dict[str, tuple[Param, ...]]:
        """The keys of a state dict, each with the parameters that lie in its tensor, in their order there."""
        out: dict[str, tuple[Param, ...]] = {}
        for param in self.params:
            out[param.source] = (*out.get(param.source, ()), param)
        return out

    def folded_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one parameter as it lies in a state dict's tensor."""
        param, shape = self.param(name), self.shape(name)
        if not param.folded:
            return shape
        kept = 1 if param.kind == "weight" else 0
        return (*shape[:kept], math.prod(shape[kept:]))

    @cached_property
    def num_params(self) -> int:
        """Total number of scalars."""
        return sum(math.prod(self.shape(param.name)) for param in self.params)

    @cached_property
    def hidden(self) -> tuple[Axis, ...]:
        """The hidden axes, in the order in which the spec lists them."""
        return tuple(axis for axis in self.axes if axis.hidden)

    @property
    def in_features(self) -> int:
        return self._axis[self.input].size

    @property
    def out_features(self) -> int:
        return self._axis[self.output].size

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The chain of affine maps from input to output, found by following axis names.

        Raises:
            ValueError: if the parameters do not form one chain of two-dimensional weights.
        """
        chain, here = [], self.input
        while here != self.output:
            weights = [p for p in self.params if p.consumes == here]
            expected = f"expected a chain of linear layers from {self.input!r} to {self.output!r}, got"
            if len(weights) != 1 or len(chain) > len(self.params):
                names = [p.name for p in weights]
                raise ValueError(f"{expected} {names} that consume axis {here!r}; this needs a sequential network")
            weight = weights[0]
            if len(weight.axes) != 2:
                raise ValueError(f"{expected} {weight.name!r} with axes {weight.axes}; this needs 2-D weights")
            biases = [p.name for p in self.params if p.kind == "bias" and p.axes == (weight.produces,)]
            if len(biases) > 1:
                raise ValueError(f"expected one bias on axis {weight.produces!r}, got {biases}")
            chain.append(Layer(weight.name, biases[0] if biases else None, here, weight.produces))
            here = weight.produces
        used = {name for layer in chain for name in (layer.weight, layer.bias)}
        if outside := [p.name for p in self.params if p.name not in used]:
            raise ValueError(f"expected every parameter in one chain of linear layers, got {outside} outside of it")
        return tuple(chain)

    def to_json(self) -> str:
        """One line of JSON that :meth:`from_json` turns back into an equal spec."""
        data = asdict(self)
        for param in data["params"]:
            for name in [name for name in ("key", "folded") if not param[name]]:
                del param[name]
        return json.dumps({"format": SPEC_FORMAT, **data}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> NetSpec:
        """Read a spec back.

        Raises:
            TypeError: for something other than text.
            ValueError: for text that is not a spec, or one of an unknown format.
        """
        if not isinstance(text, str | bytes):
            raise TypeError(
                f"expected a NetSpec as JSON text, got {type(text).__name__}; make the text with spec.to_json()"
            )
        try:
            data = json.loads(text)
            found = data.pop("format")
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"expected a NetSpec as JSON with a 'format' field, got {text[:60]!r}") from error
        if found != SPEC_FORMAT:
            raise ValueError(f"expected NetSpec format {SPEC_FORMAT}, got {found!r}; a newer weightspace may read it")
        try:
            axes = tuple(Axis(**axis) for axis in data.pop("axes"))
            params = tuple(
                Param(p["name"], tuple(p["axes"]), p["kind"], p.get("key"), p.get("folded", False))
                for p in data.pop("params")
            )
            return cls(axes, params, **data)
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed NetSpec: {error}") from error


def check_spec(spec: Any) -> None:
    """Raise ``TypeError`` for what is no ``NetSpec``."""
    if not isinstance(spec, NetSpec):
        raise TypeError(f"spec: expected a NetSpec, got {type(spec).__name__}; make one with ws.siren or ws.mlp")


def _check(spec: NetSpec) -> None:
    """Refuse what is not a network, with expected, got and the remedy."""
    for what, names in (("axis", [a.name for a in spec.axes]), ("parameter", [p.name for p in spec.params])):
        if repeated := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"expected distinct {what} names, got {repeated} more than once")
    if spec.init not in INITS:
        raise ValueError(f"unknown init: expected one of {list(INITS)}, got {spec.init!r}")
    if not spec.params:
        raise ValueError("expected at least one parameter, got none")
    for end in (spec.input, spec.output):
        if end not in spec._axis or spec._axis[end].hidden:
            raise ValueError(f"expected {end!r} among the axes and without activation; it is an end of the network")
    for param in spec.params:
        _check_param(spec, param)
    for parts in spec.sources.values():
        _check_parts(spec, parts)
    for axis in spec.hidden:
        if not any(p.produces == axis.name for p in spec.params):
            raise ValueError(f"hidden axis {axis.name!r} is produced by no parameter; remove it or add its weight")


def _check_param(spec: NetSpec, param: Param) -> None:
    least = KINDS.get(param.kind)
    if least is None:
        raise ValueError(f"parameter {param.name!r}: expected kind {' or '.join(map(repr, KINDS))}, got {param.kind!r}")
    if len(param.axes) < least or (param.kind == "bias" and len(param.axes) != 1):
        raise ValueError(f"parameter {param.name!r}: a {param.kind} cannot have the axes {param.axes}")
    if unknown := [name for name in param.axes if name not in spec._axis]:
        raise ValueError(f"parameter {param.name!r} names unknown axes {unknown}; expected {sorted(spec._axis)}")
    if param.kind == "norm" and (name := spec._axis[param.axes[0]].activation) is not None:
        row = activation(name)
        if row.scale != "none" or row.periodic:
            raise ValueError(
                f"parameter {param.name!r}: expected a norm's axis to have permutations alone, got {name}; say 'other'"
            )
    # Kernel axes may repeat ("k", "k"): nothing permutes them. A repeated hidden, produced or consumed axis may not.
    twice = [
        n
        for i, n in enumerate(param.axes)
        if n in param.axes[:i] and (n in param.axes[: KINDS[param.kind]] or spec._axis[n].hidden)
    ]
    if twice:
        raise ValueError(
            f"parameter {param.name!r} names axis {twice[0]!r} twice in {param.axes}; "
            "one permutation cannot act on both: give each its own axis name"
        )
    if late := [n for n in param.axes[1 if param.kind == "norm" else 2 :] if spec._axis[n].hidden]:
        raise ValueError(
            f"parameter {param.name!r}: expected hidden axes first (produced) or second (consumed), got {late[0]!r} "
            f"later in {param.axes}; move it to the second place"
        )


def _check_parts(spec: NetSpec, parts: tuple[Param, ...]) -> None:
    """Parameters of one tensor differ in size along the joined axis alone."""
    join = 1 if parts[0].kind == "weight" else 0
    shapes = [spec.folded_shape(p.name) for p in parts]
    if len({p.kind for p in parts}) > 1 or len({(*s[:join], *s[join + 1 :]) for s in shapes}) > 1:
        found = [(p.name, p.kind, s) for p, s in zip(parts, shapes, strict=True)]
        raise ValueError(
            f"state dict key {parts[0].source!r}: expected parts of one kind that fit together, got {found}"
        )


def _chain(
    widths: Sequence[int], activations: Sequence[str], omegas: Sequence[float], shift: float, init: Init, bias: bool
) -> NetSpec:
    for name in activations:  # an axis may do without, or say 'other'; a hidden layer of a chain may not
        if name not in ACTIVATIONS:
            raise ValueError(f"unknown activation: expected one of {sorted(ACTIVATIONS)}, got {name!r}")
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
        activation: one name, or one for each hidden layer.
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
