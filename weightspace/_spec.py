"""``NetSpec``: a network's named axes, parameters and activations, without any tensor."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

from weightspace._activation import OTHER, Activation, activation
from weightspace._checks import number
from weightspace._files import parse_json

SPEC_FORMAT = 1
MOST_SIZE, MOST_AXES = 1 << 40, 64
Init = Literal["dws", "siren", "torch"]
INITS: tuple[str, ...] = ("dws", "siren", "torch")
Kind = Literal["weight", "bias", "norm"]
_OPTIONAL = {"key": None, "folded": False, "stacked": False, "dual": False}
KINDS = {"weight": 2, "bias": 1, "norm": 1}
"""Each kind of parameter with the fewest axes that it names."""


@dataclass(frozen=True)
class Axis:
    """A named axis. It is *hidden*, that is, permutable, exactly when it carries an activation.

    Args:
        name: the name that parameters refer to.
        size: number of entries.
        activation: a name of the activation table, or ``"other"`` where permutations alone are proved (residual sums,
            norms), ``"linear"`` where there is none between two linear maps, so that every invertible matrix commutes,
            or ``None`` for inputs, outputs, kernel and position axes.
        omega: frequency of periodic activations, ``sin(omega * z)``; ignored by the others.
        blocks: number of blocks that move as wholes, such as the heads of attention. A ``"linear"`` axis has a matrix
            for each block, and permutations inside; blocks of ``"other"`` keep their order inside.
        follows: name of an axis with as many blocks whose permutation of blocks this one shares.
    """

    name: str
    size: int
    activation: str | None = None
    omega: float = 1.0
    blocks: int = 1
    follows: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"axis {self.name!r}: expected a size of at least 1, got {self.size!r}")
        if self.size > MOST_SIZE:  # products of such numbers would take for ever
            raise ValueError(f"axis {self.name!r}: expected a size of at most {MOST_SIZE}, got a larger one")
        if self.activation is not None:
            activation(self.activation)
        if isinstance(self.blocks, bool) or not isinstance(self.blocks, int) or self.blocks < 1:
            raise ValueError(f"axis {self.name!r}: expected at least 1 block, got {self.blocks!r}")
        if self.blocks > 1 and (self.size % self.blocks or self.activation not in ("linear", "other")):
            raise ValueError(
                f"axis {self.name!r}: expected blocks of one size on an axis of 'linear' or 'other', got "
                f"{self.blocks} blocks of {self.size} {self.activation}"
            )
        omega = number(f"axis {self.name!r}", self.omega, "a positive omega", above=0)
        object.__setattr__(self, "omega", omega)

    @property
    def hidden(self) -> bool:
        return self.activation is not None

    @property
    def block_size(self) -> int:
        """The number of entries in each block."""
        return self.size // self.blocks

    @property
    def symmetry(self) -> Activation:
        """The row of the activation table: which scales, signs and phases commute with the activation.

        An axis without activation has the row of ``"other"``, which allows none.

        Example:
            >>> Axis("h1", 8, "relu").symmetry.scale, Axis("in", 2).symmetry.scale
            ('positive', 'none')
        """
        return OTHER if self.activation is None else activation(self.activation)

    @property
    def phase_step(self) -> float:
        """The shift of the pre-activation that one step of phase makes, ``pi / omega``; 0 where there is no phase."""
        return self.symmetry.phase_step(self.omega)


@dataclass(frozen=True)
class Param:
    """A parameter and the names of its axes in torch's order.

    A ``"weight"`` produces its first axis and consumes its second; further axes (kernel, position) are carried
    along. A ``"bias"`` is added to the axis it names. A ``"norm"`` (scale, shift or running statistics of a
    normalisation) is permuted with the axis it names, which must allow permutations only (activation ``"other"``).
    Two parameters that share an axis name share its symmetry.

    Args:
        name: the parameter's name, distinct in the spec.
        axes: names of its axes.
        kind: ``"weight"``, ``"bias"`` or ``"norm"``.
        key: the key of the state dict that holds it, by default its name. Parameters that share a key are slices of one
            state-dict tensor: a layer that reads a concatenation is stored as one parameter per input, side by side
            along the consumed axis (weights) or along the first axis (all others, and what is ``stacked``: packed
            queries, keys and values).
        folded: whether the state-dict tensor is flattened: all axes after the first (for norms: all axes) are merged
            into one, as in a linear layer after a flatten.
        stacked: whether the parts of its state-dict tensor lie on top of each other, along the produced axis.
        dual: whether a matrix on the linear axis that it produces acts by its inverse transpose, as on the keys of
            attention where it acts on the queries.
    """

    name: str
    axes: tuple[str, ...]
    kind: Kind = "weight"
    key: str | None = None
    folded: bool = False
    stacked: bool = False
    dual: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        if self.key == self.name:
            object.__setattr__(self, "key", None)

    @property
    def state_key(self) -> str:
        """The key of the state dict that holds this parameter."""
        return self.name if self.key is None else self.key

    @property
    def statistic(self) -> bool:
        """Whether this is a running mean or variance: measured on data, not learned."""
        return self.kind == "norm" and self.state_key.rpartition(".")[2] in ("running_mean", "running_var")

    @property
    def variance(self) -> bool:
        """Whether this is a running variance, which cannot be negative."""
        return self.kind == "norm" and self.state_key.rpartition(".")[2] == "running_var"

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


@dataclass(frozen=True, repr=False)
class NetSpec:
    """A description of a network: named axes, parameters and activations. Hashable, comparable, with a JSON round trip.

    Args:
        axes: all axes; those with an activation are hidden.
        params: the parameters in the order in which ``Weights.flat`` holds them.
        input: name of the input axis.
        output: name of the output axis.
        output_shift: constant added to the network's output (0.5 in the released SIREN class of Navon et al. 2023).
        init: the initialisation the network was made for, see :func:`weightspace.siren`.

    Raises:
        ValueError: if a parameter names an unknown axis, or the same hidden axis twice, if names repeat, or if
            a hidden axis is produced by no parameter.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
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
    def by_state_key(self) -> dict[str, tuple[Param, ...]]:
        """The keys of a state dict, each with the parameters that are parts of its tensor, in their order there."""
        out: dict[str, list[Param]] = {}
        for param in self.params:
            out.setdefault(param.state_key, []).append(param)
        return {key: tuple(parts) for key, parts in out.items()}

    def joined_along(self, key: str) -> int:
        """Return the axis along which the parts of a state dict's tensor lie side by side."""
        first = self.by_state_key[key][0]
        return 1 if first.kind == "weight" and not first.stacked else 0

    def state_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one parameter in the state dict, where axes may be folded into one."""
        param, shape = self.param(name), self.shape(name)
        if not param.folded:
            return shape
        kept = 1 if param.kind == "weight" else 0
        return (*shape[:kept], math.prod(shape[kept:]))

    def state_dict_shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor of the state dict, in which several parameters may be joined."""
        parts = self.by_state_key[key]
        join = self.joined_along(key)
        shapes = [self.state_shape(part.name) for part in parts]
        return (*shapes[0][:join], sum(shape[join] for shape in shapes), *shapes[0][join + 1 :])

    @cached_property
    def num_params(self) -> int:
        """Total number of scalars."""
        return sum(math.prod(self.shape(param.name)) for param in self.params)

    @cached_property
    def hidden(self) -> tuple[Axis, ...]:
        """The hidden axes, in the order in which the spec lists them."""
        return tuple(axis for axis in self.axes if axis.hidden)

    @cached_property
    def linear(self) -> tuple[Axis, ...]:
        """The hidden axes between two linear maps, on which every invertible matrix commutes."""
        return tuple(axis for axis in self.hidden if axis.symmetry.linear)

    @cached_property
    def blocked(self) -> tuple[Axis, ...]:
        """The hidden axes of several blocks; those that follow others come after them."""
        return tuple(sorted((a for a in self.hidden if a.blocks > 1), key=lambda axis: axis.follows is not None))

    @cached_property
    def _biases(self) -> dict[str, tuple[str, ...]]:
        out: dict[str, list[str]] = {}
        for param in self.params:
            if param.kind == "bias":
                out.setdefault(param.produces, []).append(param.name)
        return {axis: tuple(names) for axis, names in out.items()}

    @cached_property
    def _consumers(self) -> dict[str, list[Param]]:
        out: dict[str, list[Param]] = {}
        for param in self.params:
            if param.consumes is not None:
                out.setdefault(param.consumes, []).append(param)
        return out

    def bias_of(self, axis: str) -> str | None:
        """Return the name of the one bias that is added to an axis, or ``None`` where there is none or several.

        Example:
            >>> import weightspace as ws
            >>> ws.siren(2, 8, 1).bias_of("h1")
            '0.bias'
        """
        biases = self._biases.get(axis, ())
        return biases[0] if len(biases) == 1 else None

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
            weights = self._consumers.get(here, [])
            expected = f"expected a chain of linear layers from {self.input!r} to {self.output!r}, got"
            if len(weights) != 1 or len(chain) > len(self.params):
                names = [p.name for p in weights]
                raise ValueError(f"{expected} {names} that consume axis {here!r}; this needs a sequential network")
            weight = weights[0]
            if len(weight.axes) != 2:
                raise ValueError(f"{expected} {weight.name!r} with axes {weight.axes}; this needs 2-D weights")
            biases = self._biases.get(weight.produces, ())
            if len(biases) > 1:
                raise ValueError(f"expected one bias on axis {weight.produces!r}, got {list(biases)}")
            chain.append(Layer(weight.name, self.bias_of(weight.produces), here, weight.produces))
            here = weight.produces
        used = {name for layer in chain for name in (layer.weight, layer.bias)}
        if outside := [p.name for p in self.params if p.name not in used]:
            raise ValueError(f"expected every parameter in one chain of linear layers, got {outside} outside of it")
        return tuple(chain)

    def __repr__(self) -> str:
        """The short form, which tells one spec from another: ``siren(2-32-32-1, omega=30)``."""
        return short_form(self)

    def to_json(self) -> str:
        """Return one line of JSON that :meth:`from_json` turns back into an equal spec."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        usual = {"blocks": 1, "follows": None}
        data["axes"] = [
            {name: value for name, value in vars(axis).items() if name not in usual or value != usual[name]}
            for axis in self.axes
        ]
        data["params"] = [
            {name: value for name, value in vars(param).items() if value or name not in _OPTIONAL}
            for param in self.params
        ]
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
            data = parse_json(text)
            found = data.pop("format")
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"expected a NetSpec as JSON with a 'format' field, got {text[:60]!r}") from error
        if found != SPEC_FORMAT:
            raise ValueError(f"expected NetSpec format {SPEC_FORMAT}, got {found!r}; a newer weightspace may read it")
        try:
            axes = tuple(Axis(**axis) for axis in data.pop("axes"))
            params = tuple(
                Param(p["name"], tuple(p["axes"]), p["kind"], *(p.get(k, d) for k, d in _OPTIONAL.items()))
                for p in data.pop("params")
            )
            return cls(axes, params, **data)
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed NetSpec: {error}") from error


def short_form(spec: NetSpec) -> str:
    """Return a few words that tell one spec from another, for messages, listings and ``repr``.

    A chain whose hidden layers share one activation reads ``kind(widths, ...)``; settings are left out where they have
    their usual value. Any other network lists its hidden axes, the first few of them.
    """
    hidden = spec.hidden
    ends = {"init": spec.init, "shift": spec.output_shift}
    try:
        chain = [spec.in_features, *(spec.axis(layer.produces).size for layer in spec.layers)]
    except ValueError:
        chain = []
    kinds = {(axis.activation, axis.omega if axis.symmetry.periodic else 1.0) for axis in hidden}
    if chain and len({kind for kind, _ in kinds}) <= 1:
        name = hidden[0].activation if hidden else "linear"
        omegas = list(dict.fromkeys(axis.omega for axis in hidden)) if hidden and hidden[0].symmetry.periodic else []
        parts = ["-".join(map(str, chain))]
        parts += [] if name in ("sine", "linear") else [f"activation={name}"]
        parts += [f"omega={omegas[0]:g}"] if len(omegas) == 1 else []
        if len(omegas) > 1:
            parts.append(f"omega=[{', '.join(f'{axis.omega:g}' for axis in hidden)}]")
        usual = "dws" if name == "sine" else "torch"
        shift = 0.5 if name == "sine" and spec.init == "dws" else 0.0
        parts += [] if ends["init"] == usual else [f"init={spec.init}"]
        parts += [] if ends["shift"] == shift else [f"output_shift={spec.output_shift:g}"]
        parts += [] if all(spec.bias_of(layer.produces) for layer in spec.layers) else ["bias=False"]
        return f"{'siren' if name == 'sine' else 'mlp'}({', '.join(parts)})"
    sizes = [f"{a.blocks}x{a.block_size}" if a.blocks > 1 else f"{a.size}" for a in hidden]
    kinds_of = [f"{a.activation}" + (f"({a.omega:g})" if a.omega != 1 else "") for a in hidden]
    axes = [f"{a.name}:{size} {kind}" for a, size, kind in zip(hidden, sizes, kinds_of, strict=True)]
    more = [f"and {len(axes) - 4} more axes"] if len(axes) > 5 else []
    shown = ", ".join([*(axes[:4] if more else axes), *more])
    return f"NetSpec({spec.in_features}->{spec.out_features}, {shown}, {spec.num_params} parameters)"


def check_spec(spec: Any) -> None:
    """Raise ``TypeError`` for anything but a ``NetSpec``."""
    if not isinstance(spec, NetSpec):
        raise TypeError(f"spec: expected a NetSpec, got {type(spec).__name__}; make one with ws.siren or ws.mlp")


def _check(spec: NetSpec) -> None:
    """Refuse what is not a network, with expected, got and the remedy."""
    for what, names in (("axis", [a.name for a in spec.axes]), ("parameter", [p.name for p in spec.params])):
        if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
            raise ValueError(f"expected distinct {what} names, got {repeated} more than once")
    if spec.init not in INITS:
        raise ValueError(f"unknown init: expected one of {list(INITS)}, got {spec.init!r}")
    if not spec.params:
        raise ValueError("expected at least one parameter, got none")
    for end in (spec.input, spec.output):
        if end not in spec._axis or spec._axis[end].hidden:
            raise ValueError(f"expected {end!r} among the axes and without activation; it is an end of the network")
    for axis in spec.axes:
        _check_follows(spec, axis)
    for param in spec.params:
        _check_param(spec, param)
    for parts in spec.by_state_key.values():
        _check_parts(spec, parts)
    produced = {param.produces for param in spec.params}
    for axis in spec.hidden:
        if axis.name not in produced and axis.follows is None:
            raise ValueError(f"hidden axis {axis.name!r} is produced by no parameter; remove it or add its weight")


def _check_follows(spec: NetSpec, axis: Axis) -> None:
    leader = axis if axis.follows is None else spec._axis.get(axis.follows)
    fits = axis.follows is None or (axis.blocks > 1 and leader is not axis)
    if not fits or leader is None or leader.follows is not None or leader.blocks != axis.blocks:
        raise ValueError(
            f"axis {axis.name!r}: expected to follow an axis of {axis.blocks} blocks that follows none, got "
            f"{axis.follows!r}"
        )


def _check_param(spec: NetSpec, param: Param) -> None:
    least = KINDS.get(param.kind)
    if least is None:
        raise ValueError(f"parameter {param.name!r}: expected kind {' or '.join(map(repr, KINDS))}, got {param.kind!r}")
    if len(param.axes) < least or (param.kind == "bias" and len(param.axes) != 1):
        raise ValueError(f"parameter {param.name!r}: a {param.kind} cannot have the axes {param.axes}")
    if len(param.axes) > MOST_AXES:
        raise ValueError(
            f"parameter {param.name!r}: expected at most {MOST_AXES} axes, as tensors have, got {len(param.axes)}"
        )
    if unknown := [name for name in param.axes if name not in spec._axis]:
        raise ValueError(f"parameter {param.name!r} names unknown axes {unknown}; expected {sorted(spec._axis)}")
    if param.dual and not spec._axis[param.axes[0]].symmetry.linear:
        raise ValueError(f"parameter {param.name!r}: expected a dual one to produce a linear axis, got {param.axes[0]}")
    if param.kind == "norm" and (name := spec._axis[param.axes[0]].activation) is not None:
        row = activation(name)
        if row.scale != "none" or row.periodic or row.linear:
            raise ValueError(
                f"parameter {param.name!r}: expected a norm's axis to have permutations alone, got {name}; say 'other'"
            )
    # Kernel axes may repeat ("k", "k"): nothing permutes them. A repeated hidden, produced or consumed axis may not.
    repeated = (name for name, count in Counter(param.axes).items() if count > 1)
    if twice := [n for n in repeated if n in param.axes[: KINDS[param.kind]] or spec._axis[n].hidden]:
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
    join = spec.joined_along(parts[0].state_key)
    shapes = [spec.state_shape(p.name) for p in parts]
    if len({(p.kind, p.stacked) for p in parts}) > 1 or len({(*s[:join], *s[join + 1 :]) for s in shapes}) > 1:
        found = [(p.name, p.kind, s) for p, s in zip(parts, shapes, strict=True)]
        raise ValueError(
            f"state dict key {parts[0].state_key!r}: expected parts of one kind that fit together, got {found}"
        )
