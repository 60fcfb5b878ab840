"""Read the files of an import: their form is that of the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from weightspace._spec import NetSpec
from weightspace._text import few, printable
from weightspace._torch_file import MOST_GROWTH, check_tensors, load_tensors
from weightspace._weights import Weights, check_finite
from weightspace.signals._npz import read_arrays
from weightspace.zoo._layer_order import BY_NAME, in_layer_order, infer, keys_of, released
from weightspace.zoo._listing import Listing

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
COUNTER = "num_batches_tracked"
NESTED = ("state_dict", "model_state_dict", "model")
"""Entries under which training scripts store the state dict beside other things."""


@dataclass(frozen=True)
class Convention:
    """Settings of networks that no tensor shows; ``None`` where nobody has said.

    Args:
        activation: the activation of the hidden layers.
        omega: the frequency of sines, one or one for each hidden layer.
        output_shift: the constant added to the output.

    Raises:
        ValueError: for a frequency of another activation than sines.
    """

    activation: str | None = None
    omega: float | tuple[float, ...] | None = None
    output_shift: float | None = None

    def __post_init__(self) -> None:
        if self.omega is not None and self.activation not in (None, "sine"):
            raise ValueError(f"omega: expected none for activation {self.activation!r}, got {self.omega}; leave it out")

    @property
    def given(self) -> bool:
        """Whether anything is said."""
        return self != Convention()

    def whole(self) -> dict[str, Any]:
        """Return all settings; those that are not given are as in the released corpora of SIRENs, or usual."""
        sine = self.activation in (None, "sine")
        usual = {"activation": "sine", "omega": 30.0 if sine else 1.0, "output_shift": 0.5 if sine else 0.0}
        return {name: value if (own := getattr(self, name)) is None else own for name, value in usual.items()}

    def assumed(self) -> dict[str, Any]:
        """Return the settings that are not given."""
        sine = self.activation in (None, "sine")
        names = ("activation", "omega", "output_shift") if sine else ("activation", "output_shift")
        return {name: self.whole()[name] for name in names if getattr(self, name) is None}


class StateDictReader:
    """A reader of files of one form; the form (keys, label inside, dtype, spec) is that of the first file.

    Args:
        spec: the spec of the networks, or ``None`` to infer it from the first file.
        convention: what the tensors do not show, where there is no spec.
        ignore: patterns of keys to pass over.

    Raises:
        ValueError: for a spec and a convention together.
    """

    def __init__(self, spec: NetSpec | None, convention: Convention, ignore: Sequence[str] = ()) -> None:
        if isinstance(ignore, str) or not all(isinstance(pattern, str) for pattern in ignore):
            raise TypeError(f"ignore: expected a list of patterns of keys, got {ignore!r:.80}")
        self._ignore = tuple(ignore)
        if spec is not None and convention.given:
            raise ValueError(
                "spec: expected either a spec or activation, omega and output_shift, got both; the spec says them all"
            )
        self.spec, self._convention = spec, convention
        self._inferred, self._released = spec is None, False
        self._keys = dict[str, str]()
        self._own = set[str]()
        self._matched = BY_NAME
        self._label_in_file = False
        self._dtype: torch.dtype | None = None

    @property
    def must_warn(self) -> bool:
        """Whether something is assumed that neither the caller nor the keys say."""
        return self._inferred and not self._released and bool(self._convention.assumed())

    @property
    def warning(self) -> str:
        """The warning about what is assumed."""
        found = ", ".join(f"{name} {value}" for name, value in self._convention.assumed().items())
        return (
            f"nothing says what these networks compute, so {found} is assumed; "
            "pass spec=, or activation=, omega= and output_shift="
        )

    def assumed(self) -> dict[str, Any]:
        """Return what the manifest records of assumptions."""
        found = self._convention.assumed()
        if not self._inferred or not found:
            return {}
        return {"assumed": {**found, "by": "keys as in the released corpora" if self._released else "default"}}

    def form(self) -> dict[str, Any]:
        """Return what the manifest records of the files' form, so that an export can restore it."""
        dtype = str(self._dtype).removeprefix("torch.")
        return {"keys": self._keys, "matched": self._matched, "label_in_file": self._label_in_file, "dtype": dtype}

    def read(self, listing: Listing) -> Weights:
        """Read all networks of one split, and note the labels that the files hold.

        Raises:
            ValueError: for a file of another form, with its name.
        """
        flat = torch.empty(0)
        for row, file in enumerate(listing.files):
            state = load_state_dict(file)
            label = state.pop("label", None)
            if label is None and listing.need_file_labels:
                raise ValueError(f"{file}: expected the key 'label' beside the parameters; or pass label_from='splits'")
            state = {key: value for key, value in state.items() if not self._passed_over(key)}
            if not self._keys:
                self._learn(state, file)
                self._label_in_file = label is not None
            assert self.spec is not None
            if not row:
                flat = self._empty(listing)
            listing.file_labels.append(label)
            flat[row] = self._flatten(state, file)
        if all(label is None for label in listing.file_labels):
            listing.take_file_labels = False
        assert self.spec is not None
        check_finite("state dicts", flat, listing.files)
        return Weights(flat, self.spec)

    def _passed_over(self, key: str) -> bool:
        return key.rpartition(".")[2] == COUNTER or any(fnmatchcase(key, pattern) for pattern in self._ignore)

    def _empty(self, listing: Listing) -> Tensor:
        """Return room for the networks of a split, if the files are large enough to hold so many numbers."""
        assert self.spec is not None
        count, size = len(listing.files), sum(file.stat().st_size for file in listing.files)
        if 4 * count * self.spec.num_params > MOST_GROWTH * size:
            raise ValueError(
                f"{listing.files[0]}: expected {count} files of {self.spec.num_params} numbers each, got {size} bytes "
                "in all; these are networks of different sizes"
            )
        return torch.empty(count, self.spec.num_params)

    def _learn(self, state: dict[str, Any], file: Path) -> None:
        """Learn the form of the files from the first one."""
        for key, value in state.items():
            if not isinstance(value, Tensor):
                raise ValueError(f"{file}: expected tensors, got {type(value).__name__} under {key!r}")
        if self.spec is None:
            self.spec = infer(state, file, **self._convention.whole())
            self._released = not self._convention.given and released(list(state))
        if not state:
            raise ValueError(f"{file}: expected parameters, got none")
        self._dtype = next(iter(state.values())).dtype
        names = keys_of(self.spec)
        if set(names) == set(state):
            self._keys = {name: name for name in names}
        elif len(names) == len(state):
            ordered, self._matched = in_layer_order(state, file)
            self._keys = dict(zip(names, ordered, strict=True))
        else:
            raise ValueError(
                f"{file}: expected {len(names)} parameters {few(names)} for {self.spec}, got {len(state)}: "
                f"{few(list(state))}; pass the spec of these networks"
            )
        self._own = set(self._keys.values())

    def _flatten(self, state: Mapping[str, Any], file: Path) -> Tensor:
        """Return the numbers of one state dict in the order of the spec."""
        assert self.spec is not None
        missing = [key for key in self._keys.values() if key not in state]
        extra = [key for key in state if key not in self._own]
        if missing or extra:
            raise ValueError(
                f"{file}: expected the keys {few(list(self._own))}, missing {few(missing)}, extra {few(extra)}"
            )
        for name, key in self._keys.items():
            value, shape = state[key], self.spec.state_dict_shape(name)
            if not isinstance(value, Tensor) or tuple(value.shape) != shape:
                got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"{file}, {key!r}: expected shape {list(shape)}, got {got}")
            if value.dtype not in FLOATS or value.dtype != self._dtype:
                expected = self._dtype if self._dtype in FLOATS else torch.float32
                raise ValueError(
                    f"{file}, {key!r}: expected {expected} as zoos hold float32 and one form of file, got "
                    f"{value.dtype}; convert the files"
                )
        return Weights.from_state_dicts([{name: state[key] for name, key in self._keys.items()}], self.spec).flat[0]


def load_state_dict(file: Path) -> dict[str, Any]:
    """Read one file's tensors, and its label.

    Raises:
        ValueError: for something other than a state dict of dense tensors with their values.
    """
    state = _loaded(file)
    for name in NESTED:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = {**state[name], **({"label": state["label"]} if "label" in state else {})}
            break
    if not isinstance(state, dict) or not state or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{file}: expected a state dict, names to tensors, got {type(state).__name__}")
    check_tensors(file, state)
    return dict(state)


def _loaded(file: Path) -> Any:
    """Read a file of one of the formats, by its ending."""
    suffix = file.suffix.lower()
    if suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file}: expected a safetensors file, got {printable(error)[:200]}") from error
    if suffix == ".npz":
        return {name: _tensor(file, name, values) for name, values in read_arrays(file).items()}
    return load_tensors(file)


def _tensor(file: Path, name: str, values: Any) -> Any:
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{file}, {name!r}: expected numbers, got {values.dtype}")
    return torch.from_numpy(values)
