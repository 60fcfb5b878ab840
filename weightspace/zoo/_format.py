"""The zoo's format: the manifest, its settings and its shards.

::

    manifest.json                        one JSON object, see Manifest
    shards/<split>-00000.safetensors     the columns of DTYPES, one row a network; further ones as "column.<name>"
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from weightspace._files import MOST_JSON, read_json, write_atomic
from weightspace._spec import NetSpec, check_spec
from weightspace._table import KINDS, check_name
from weightspace._version import __version__

FORMAT = "weightspace-zoo"
VERSION, WITH_COLUMNS = 1, 2
"""Versions of the format: the second has further columns, and zoos without any are of the first."""
MANIFEST = "manifest.json"
INIT_REGIMES = ("independent", "shared", "meta", "unknown")
DTYPES = {"flat": ("F32",), "label": ("I64", "F32"), "source": ("I64",), "view": ("I64",), "psnr": ("F32",)}
"""Columns of a shard and the types that each may have: labels are whole numbers, or real ones to predict."""

FURTHER = "column."
"""How the name of a further column begins in a shard."""
FURTHER_DTYPES = {"whole": "I64", "real": "F64", "text": "U8"}

InitRegime = Literal["independent", "shared", "meta", "unknown"]
ShardPlan = Sequence[tuple[str, int, Any]]

_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_HASH = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"shards/[A-Za-z0-9][A-Za-z0-9_.-]*\.safetensors")


@dataclass(frozen=True)
class Shard:
    """A file of a zoo, planned or done, as the manifest records it.

    Args:
        file: path below the zoo, ``shards/<split>-<number>.safetensors``.
        split: the split that its networks belong to.
        count: number of networks.
        key: any JSON value that says which networks belong in it (the range of signals, say).
        state: ``"planned"`` or ``"done"``.
        bytes: size of the file, once done.
        sha256: hash of the file, once done.
    """

    file: str
    split: str
    count: int
    key: Any = None
    state: Literal["planned", "done"] = "planned"
    bytes: int | None = None
    sha256: str | None = None

    @property
    def done(self) -> bool:
        """Whether the file is written, and the record says how it reads."""
        return self.state == "done"

    @property
    def plan(self) -> tuple[str, int, Any]:
        """The plan of the shard: split, number of networks and key."""
        return self.split, self.count, self.key

    def planned_again(self) -> Shard:
        """Return the record of a shard that is to be made anew."""
        return replace(self, state="planned", bytes=None, sha256=None)


@dataclass(frozen=True)
class ZooSettings:
    """The settings that a zoo records of its networks as a whole.

    Args:
        recipe: how the networks were fitted (steps, learning rate, init, target PSNR, ...), in values that JSON holds.
        init_regime: how the networks started: from ``"independent"`` points, from one ``"shared"`` point, from one that
            was learned (``"meta"``), or ``"unknown"``.
        seed: the seed of the fit.
        views: fits per signal.
        classes: names of the labels 0, 1, ...; empty when the labels have no names.
        data_digest: hash of the signals, so that a fit resumed with other data is refused.
        provenance: data set name, licence, citation, ...; a writer adds versions and the date.
        columns: kinds of the further columns by name: ``"whole"`` or ``"real"`` numbers, or ``"text"``.

    Raises:
        ValueError: for a setting of another kind, or values that JSON cannot hold.

    Example:
        >>> ZooSettings(recipe={"steps": 10}, classes=["cat", "dog"]).classes
        ('cat', 'dog')
    """

    recipe: Mapping[str, Any] = field(default_factory=dict)
    init_regime: InitRegime = "unknown"
    seed: int | None = None
    views: int = 1
    classes: Sequence[str] = ()
    data_digest: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_settings(vars(self))
        object.__setattr__(self, "classes", tuple(self.classes))
        for name in ("recipe", "provenance", "columns"):
            object.__setattr__(self, name, plain(dict(getattr(self, name)), name))


SETTINGS: tuple[str, ...] = tuple(f.name for f in fields(ZooSettings))


@dataclass(frozen=True)
class Manifest:
    """A zoo's record of itself: the spec of its networks, its settings and its shards."""

    spec: NetSpec
    settings: ZooSettings
    shards: tuple[Shard, ...]

    def to_json(self) -> str:
        """Return the text of the manifest's file."""
        body = {"spec": json.loads(self.spec.to_json()), **vars(self.settings)}
        body["shards"] = [vars(shard) for shard in self.shards]
        version = WITH_COLUMNS if body["columns"] else VERSION
        if version == VERSION:
            body.pop("columns")
        return json.dumps({"format": FORMAT, "version": version, **body}, indent=1, allow_nan=False)

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest, atomically.

        Raises:
            ValueError: for so many shards that the manifest could not be read again.
        """
        data = self.to_json().encode()
        if len(data) > MOST_JSON:
            raise ValueError(
                f"{folder}: expected a manifest of at most {MOST_JSON / 2**20:g} MiB, got {len(self.shards)} shards, "
                f"which take {len(data) / 2**20:.1f} MiB; use a larger shard_size"
            )
        write_atomic(folder / MANIFEST, data)

    @classmethod
    def plan(cls, spec: NetSpec, plan: ShardPlan, settings: ZooSettings) -> Manifest:
        """Make the manifest of a zoo that is about to be written, with every shard planned.

        Raises:
            TypeError: for something other than a ``NetSpec``.
            ValueError: for an impossible plan.
        """
        check_spec(spec)
        made = {
            "weightspace": __version__,
            "torch": str(torch.__version__),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return cls(spec, replace(settings, provenance={**settings.provenance, **made}), planned(plan))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a folder's manifest.

        Raises:
            ValueError: if there is none, or one of an unknown version or another shape.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise ValueError(
                f"{folder}: expected a zoo, a folder with a {MANIFEST}, got none; `weightspace fit` makes one"
            )
        body = read_json(path, "a zoo manifest")
        if not isinstance(body, dict) or body.pop("format", None) != FORMAT:
            raise ValueError(f"{path}: expected a manifest with format {FORMAT!r}, got another; it is not a zoo's")
        if (version := body.pop("version", None)) not in (VERSION, WITH_COLUMNS) or isinstance(version, bool):
            raise ValueError(
                f"{path}: expected zoo format version {VERSION} or {WITH_COLUMNS}, got {version!r}; "
                "read it with the version of weightspace that wrote it, or a newer one"
            )
        try:
            return cls._from_body(body)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path}: malformed zoo manifest: {error!r}; copy the zoo again") from error
        except ValueError as error:
            raise ValueError(f"{path}: malformed zoo manifest: {error}; copy the zoo again") from error

    @classmethod
    def _from_body(cls, body: dict[str, Any]) -> Manifest:
        if not isinstance(records := body.pop("shards"), list) or not records:
            raise ValueError(f"shards: expected a list of at least one shard, got {records!r}")
        shards, files = tuple(Shard(**record) for record in records), set[str]()
        for shard in shards:
            _check_shard(shard)
            if shard.file in files:
                raise ValueError(f"shards: expected each file once, got {shard.file!r} twice")
            files.add(shard.file)
        spec = NetSpec.from_json(json.dumps(body.pop("spec")))
        body.setdefault("columns", {})
        if missing := [name for name in SETTINGS if name not in body]:
            raise ValueError(f"expected the settings {list(SETTINGS)}, got none for {missing}")
        return cls(spec, ZooSettings(**body), shards)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for a setting of a zoo that is not of its kind.

    Args:
        settings: any of the fields of :class:`ZooSettings`, by name; others are not looked at.
    """
    rules: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "init_regime": (f"one of {list(INIT_REGIMES)}", lambda value: value in INIT_REGIMES),
        "seed": ("an integer or None", lambda value: value is None or _is_integer(value)),
        "views": ("at least 1", lambda value: _is_integer(value) and value >= 1),
        "classes": ("a sequence of names", _are_names),
        "data_digest": ("a text or None", lambda value: value is None or isinstance(value, str)),
        "recipe": ("a mapping", lambda value: isinstance(value, Mapping)),
        "provenance": ("a mapping", lambda value: isinstance(value, Mapping)),
        "columns": (
            f"a mapping from names to kinds, of {KINDS}",
            lambda value: isinstance(value, Mapping) and all(kind in KINDS for kind in value.values()),
        ),
    }
    for name, (expected, good) in rules.items():
        if name in settings and not good(settings[name]):
            raise ValueError(f"{name}: expected {expected}, got {settings[name]!r:.200}")
    for name in settings.get("columns", {}):
        check_name(name)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_names(values: Any) -> bool:
    return (
        isinstance(values, Iterable)
        and not isinstance(values, str | Mapping)
        and all(isinstance(value, str) for value in values)
    )


def _check_shard(shard: Shard) -> None:
    """Raise ``ValueError`` for a record that no writer makes."""
    if not isinstance(shard.file, str) or not _SHARD.fullmatch(shard.file):
        raise ValueError(f"file: expected shards/<name>.safetensors, got {shard.file!r}")
    if not isinstance(shard.split, str) or not _SPLIT.fullmatch(shard.split):
        raise ValueError(f"{shard.file}, split: expected a name, got {shard.split!r}")
    if not _is_integer(shard.count) or shard.count < 1:
        raise ValueError(f"{shard.file}, count: expected at least 1, got {shard.count!r}")
    if shard.state not in ("planned", "done"):
        raise ValueError(f"{shard.file}, state: expected 'planned' or 'done', got {shard.state!r}")
    if shard.done and not (
        _is_integer(shard.bytes) and isinstance(shard.sha256, str) and _HASH.fullmatch(shard.sha256)
    ):
        raise ValueError(
            f"{shard.file}: expected bytes and sha256 of a done shard, got {shard.bytes!r}, {shard.sha256!r}"
        )


def planned(plan: ShardPlan, after: Sequence[Shard] = ()) -> tuple[Shard, ...]:
    """Name the shards of a plan of (split, count, key), which follow those that are there.

    Raises:
        ValueError: for an empty plan, an odd split name or a count below one.
    """
    shards, numbers = [], {split: count - 1 for split, count in Counter(shard.split for shard in after).items()}
    for split, count, key in plan:
        if not isinstance(split, str) or not _SPLIT.fullmatch(split):
            raise ValueError(f"plan: expected a split name of letters, digits, '_', '-' and '.', got {split!r}")
        if not _is_integer(count) or count < 1:
            raise ValueError(f"plan: expected at least one network in every shard, got {count!r} in {split!r}")
        number = numbers[split] = numbers.get(split, -1) + 1
        shards.append(Shard(f"shards/{split}-{number:05d}.safetensors", split, count, plain(key, "plan key")))
    if not shards:
        raise ValueError("plan: expected at least one shard (split, count, key), got none")
    return tuple(shards)


def plain(value: Any, what: str) -> Any:
    """Return ``value`` as JSON gives it back (tuples become lists), so that what is compared is what is stored.

    Raises:
        ValueError: if JSON cannot hold it, or only by leaving the standard (infinity, NaN).
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what}: expected plain values that JSON can hold, got {value!r:.200} ({error})") from error
