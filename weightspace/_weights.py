"""``Weights``: a batch of networks of one spec, as one flat tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace._spec import NetSpec, check_spec
from weightspace._text import few


@dataclass(frozen=True, eq=False)
class Weights:
    """A batch of networks with one spec.

    Args:
        flat: ``[batch, param]``, or ``[batch, param, channel]`` for features inside models. Parameters lie in the
            spec's order, each contiguous in torch's order.
        spec: what each network is.

    Raises:
        TypeError: if ``flat`` is not a floating-point tensor, or ``spec`` is not a ``NetSpec``.
        ValueError: if ``flat`` does not have ``spec.num_params`` columns.

    Example:
        >>> import weightspace as ws
        >>> w = ws.Weights(torch.zeros(4, 1185), ws.siren(2, 32, 32, 1))
        >>> len(w), w.view("0.weight").shape, len(w[1:3])
        (4, torch.Size([4, 32, 2]), 2)
    """

    flat: Tensor
    spec: NetSpec

    def __post_init__(self) -> None:
        check_spec(self.spec)
        if not isinstance(self.flat, Tensor) or not self.flat.is_floating_point():
            got = self.flat.dtype if isinstance(self.flat, Tensor) else type(self.flat).__name__
            raise TypeError(f"flat: expected a floating-point tensor [batch, param], got {got}")
        if self.flat.ndim not in (2, 3) or self.flat.shape[1] != self.spec.num_params:
            raise ValueError(
                f"flat: expected [batch, {self.spec.num_params}] (and maybe a channel axis) for this spec, "
                f"got {list(self.flat.shape)}"
            )

    def __len__(self) -> int:
        return self.flat.shape[0]

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Weights:
        """The networks at ``index``; an integer keeps the batch axis, so the result is always a batch."""
        if isinstance(index, Integral) or (isinstance(index, Tensor) and _is_integer(index)):
            index = int(index)
            if not -len(self) <= index < len(self):
                raise IndexError(f"expected an index below {len(self)}, got {index}")
            index = slice(index, index + 1) if index != -1 else slice(-1, None)
        return self.replace(self.flat[index])

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.flat.shape))
        return f"Weights({shape}, {self.dtype}, {self.device})"

    @property
    def device(self) -> torch.device:
        return self.flat.device

    @property
    def dtype(self) -> torch.dtype:
        return self.flat.dtype

    def view(self, name: str) -> Tensor:
        """One parameter of every network: a view ``[batch, *shape]`` (``[batch, *shape, channel]``) of ``flat``."""
        shape = self.spec.shape(name)
        part = self.flat[:, self.spec.slices[name]]
        return part.unflatten(1, shape)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Iterate over the names and tensors of all parameters, in the spec's order.

        The tensors come from one split of ``flat``: in a backward pass that is far cheaper than one view each.
        """
        sizes = [s.stop - s.start for s in self.spec.slices.values()]
        for param, part in zip(self.spec.params, self.flat.split(sizes, dim=1), strict=True):
            yield param.name, part.unflatten(1, self.spec.shape(param.name))

    def replace(self, flat: Tensor) -> Weights:
        """The same spec with other numbers."""
        return Weights(flat, self.spec)

    def to(self, *args: Any, **kwargs: Any) -> Weights:
        """Move or cast, with the arguments of ``torch.Tensor.to``."""
        return self.replace(self.flat.to(*args, **kwargs))

    def clone(self) -> Weights:
        """A copy that shares no memory."""
        return self.replace(self.flat.clone())

    def state_dict(self, index: int = 0) -> dict[str, Tensor]:
        """The parameters of one network under their state dict keys, folded and joined as there, copied."""
        values = {name: value[0] for name, value in self[index].items()}
        out = {}
        for key, parts in self.spec.by_state_key.items():
            folded = [values[p.name].reshape(_with_channels(self, p.name)) for p in parts]
            out[key] = torch.cat(folded, self.spec.joined_along(key)) if len(parts) > 1 else folded[0].clone()
        return out

    def state_dicts(self) -> list[dict[str, Tensor]]:
        """One state dict per network."""
        return [self.state_dict(i) for i in range(len(self))]

    @classmethod
    def from_state_dicts(cls, state_dicts: Sequence[Mapping[str, Tensor]], spec: NetSpec) -> Weights:
        """Stack state dicts whose keys are those of the spec: the names of its parameters, or what these say.

        Tensors that hold several parameters are cut, folded ones unfolded. Counters of batch norms
        (``num_batches_tracked``) are no parameters, and are passed over.

        Raises:
            TypeError: for something other than a sequence of mappings of tensors, or of a ``NetSpec``.
            ValueError: for no state dict at all, or missing, extra or misshapen keys.

        Example:
            >>> import weightspace as ws
            >>> spec = ws.mlp(2, 3, 1)
            >>> sd = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)).state_dict()
            >>> len(ws.Weights.from_state_dicts([{k.replace("2.", "1."): v for k, v in sd.items()}], spec))
            1
        """
        if isinstance(state_dicts, Mapping):
            raise TypeError("expected a sequence of state dicts, got one mapping; put it in a list")
        if not isinstance(state_dicts, Sequence):
            raise TypeError(f"expected a sequence of state dicts, got {type(state_dicts).__name__}; put them in a list")
        check_spec(spec)
        if not len(state_dicts):
            raise ValueError("expected at least one state dict, got none")
        rows = [_flatten(state_dict, spec, number) for number, state_dict in enumerate(state_dicts)]
        return cls(torch.stack(rows) if len(rows) > 1 else rows[0][None], spec)  # one large network is not copied

    @classmethod
    def cat(cls, parts: Sequence[Weights]) -> Weights:
        """Join batches of one spec.

        Raises:
            TypeError: for something other than ``Weights``.
            ValueError: if the specs differ or nothing is given.
        """
        if not parts:
            raise ValueError("expected at least one batch of weights, got none")
        for number, part in enumerate(parts):
            check_weights(f"part {number}", part)
            check_same_spec(parts[0], part)
        return cls(torch.cat([part.flat for part in parts]), parts[0].spec)


def _is_integer(index: Tensor) -> bool:
    return index.ndim == 0 and index.dtype != torch.bool and not (index.is_floating_point() or index.is_complex())


def _flatten(state_dict: Mapping[str, Tensor], spec: NetSpec, number: int) -> Tensor:
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"state dict {number}: expected a mapping of names to tensors, got {type(state_dict).__name__}; "
            "pass module.state_dict()"
        )
    expected = list(spec.by_state_key)
    missing = [name for name in expected if name not in state_dict]
    extra = [name for name in state_dict if name not in spec.by_state_key and not is_counter(name)]
    if missing or extra:
        raise ValueError(
            f"state dict {number}: expected the keys {few(expected)}, missing {few(missing)}, extra {few(extra)}"
        )
    parts: dict[str, Tensor] = {}
    for name, params in spec.by_state_key.items():
        value = plain_tensor(f"state dict {number}, {name!r}", state_dict[name])
        shape = spec.state_dict_shape(name)
        if tuple(value.shape) != shape:
            raise ValueError(f"state dict {number}, {name!r}: expected shape {list(shape)}, got {list(value.shape)}")
        join = spec.joined_along(name)
        pieces = value.split([spec.state_shape(p.name)[join] for p in params], join) if len(params) > 1 else [value]
        parts.update((p.name, piece.reshape(-1)) for p, piece in zip(params, pieces, strict=True))
    flat = torch.cat([parts[param.name] for param in spec.params])
    return flat if flat.is_floating_point() else flat.to(torch.get_default_dtype())


def plain_tensor(name: str, value: Any) -> Tensor:
    """Return ``value`` as a tensor of real numbers that lie in memory one after another, without its gradient.

    Raises:
        TypeError: for something that is not a tensor or an array, for complex numbers, whose imaginary part would be
            lost, and for numbers of eight bits or fewer.
        ValueError: for tensors without values of their own (meta, sparse, nested).
    """
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(_native(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name}: expected a tensor, got {type(value).__name__}; make it with torch.as_tensor"
        ) from error
    if tensor.is_complex():
        raise TypeError(f"{name}: expected real numbers, got {tensor.dtype}; complex weights are not supported")
    if tensor.is_floating_point() and tensor.element_size() < 2:
        raise TypeError(
            f"{name}: expected 16 bits or more a number, got {tensor.dtype}; cast it with .to(torch.float32)"
        )
    if tensor.is_meta or tensor.is_nested or tensor.layout != torch.strided:
        kind = "meta" if tensor.is_meta else "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        raise ValueError(f"{name}: expected a dense tensor with its values, got a {kind} one; make it dense first")
    return tensor.detach()


def _native(value: Any) -> Any:
    """Return an array that torch can read: in the machine's byte order, with positive strides."""
    if not isinstance(value, np.ndarray):
        return value
    return np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))


def is_counter(key: Any) -> bool:
    """Whether a state dict's key is the counter of a batch norm, which is no parameter."""
    return isinstance(key, str) and key.rpartition(".")[2] == "num_batches_tracked"


def _with_channels(weights: Weights, name: str) -> tuple[int, ...]:
    return (*weights.spec.state_shape(name), *weights.flat.shape[2:])


def check_weights(name: str, weights: Any) -> None:
    """Raise ``TypeError`` for anything but ``Weights``."""
    if not isinstance(weights, Weights):
        raise TypeError(
            f"{name}: expected Weights, got {type(weights).__name__}; wrap the tensor: ws.Weights(flat, spec)"
        )


def check_finite(name: str, weights: Weights | Tensor, names: Sequence[Any] | None = None) -> None:
    """Raise ``ValueError`` if any network holds NaN or infinity.

    Args:
        name: what the networks are, for the message.
        weights: the networks, or their flat tensor ``[batch, param]``.
        names: the name of each network, such as its file; by default its number.
    """
    flat = (weights.flat if isinstance(weights, Weights) else weights).detach()
    if bool(flat.sum().isfinite()) or bool(flat.isfinite().all()):  # the sum is the fast way; it may overflow
        return
    bad = (~flat.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
    shown = [str(names[row]) for row in bad[:5]] if names is not None else bad[:5]
    raise ValueError(
        f"{name}: expected finite weights, got NaN or infinity in networks {shown} ({len(bad)} of {len(flat)}); "
        "leave them out, or fit them again with a lower lr"
    )


def check_same_spec(a: Weights, b: Weights) -> None:
    """Raise ``ValueError`` unless both batches hold networks of one spec."""
    if a.spec != b.spec:
        raise ValueError(f"expected networks of one spec, got {a.spec} and {b.spec}; only one spec's networks mix")


def check_features(spec: NetSpec, features: Weights, channels: int) -> None:
    """Raise ``ValueError`` unless these are features of networks of this spec, with so many channels."""
    check_built_for(spec, features)
    if features.flat.ndim != 3 or features.flat.shape[2] != channels or not len(features):
        raise ValueError(
            f"expected features [batch, param, {channels}] of at least one network, got {list(features.flat.shape)}"
        )


def check_built_for(spec: NetSpec, weights: Weights) -> None:
    """Raise unless ``weights`` are ``Weights`` of the spec that a model is built for."""
    check_weights("weights", weights)
    if weights.spec != spec:
        raise ValueError(f"the model is built for {spec}, got networks of {weights.spec}")
