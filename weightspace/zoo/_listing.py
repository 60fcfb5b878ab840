"""The listing of a folder of state dicts: ``splits.json``, its files, their sources and views; and ``spec.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from os import PathLike
from pathlib import Path, PurePath
from typing import Any, Literal

from weightspace._files import write_atomic
from weightspace._networks import COLUMNS, Networks
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.zoo._format import check_settings
from weightspace.zoo._zoo import Zoo

LabelFrom = Literal["auto", "splits", "file"] | Callable[[str], int]
SPEC_FILE_FORMAT = "weightspace-state-dicts"
SPEC_FILE_VERSION = 1
SPEC_FILE = "spec.json"
EXPORTED = ("init_regime", "classes", "recipe", "seed")
_INT64 = range(-(2**63), 2**63)


@dataclass
class Listing:
    """The files of one split, and what is known of each."""

    files: list[Path]
    take_file_labels: bool
    need_file_labels: bool = False
    label: list[Any] | None = None
    source: list[int] | None = None
    view: list[int] | None = None
    psnr: list[float] | None = None
    file_labels: list[Any] = field(default_factory=list)

    def networks(self, weights: Weights) -> Networks:
        """Return the files' weights as networks, with the columns that are listed."""
        labels: Any
        labels, name = self.label, "splits"
        if labels is None and self.take_file_labels:
            labels, name = self.file_labels, "file"
        if labels is not None:
            labels = [_label(own, file, name) for own, file in zip(labels, self.files, strict=True)]
        psnr = None if self.psnr is None else [float("nan") if value is None else value for value in self.psnr]
        return Networks(weights, labels, self.source, self.view, psnr)


def _label(label: Any, file: Path, place: str) -> int:
    if label is None:
        return -1
    try:
        if (number := int(label)) == float(label) and number in _INT64:
            return number
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    raise ValueError(
        f"{file}: expected an integer label, got {label!r} from the {place}; or pass label_from=a function"
    )


def read_listings(
    folder: Path,
    splits: str | Path | Mapping[str, Any],
    label_from: LabelFrom,
    source_of: Callable[[str], Hashable] | None,
) -> dict[str, Listing]:
    """Read and check the listing, find its files, and number their sources and views."""
    if not callable(label_from) and label_from not in ("auto", "splits", "file"):
        raise ValueError(f"label_from: expected 'auto', 'splits', 'file' or a function, got {label_from!r}")
    if not isinstance(splits, str | PathLike | Mapping):
        raise TypeError(f"splits: expected a mapping, or the path of a JSON file, got {type(splits).__name__}")
    table = splits if isinstance(splits, Mapping) else _read_splits(folder / splits)
    listings, paths, owner = dict[str, Listing](), dict[str, list[str]](), dict[Path, str]()
    for split, entry in table.items():
        columns = _entry(split, entry)
        if not (paths_here := columns["path"]):
            continue
        paths[split] = paths_here
        files = [_find(folder, path) for path in paths_here]
        for path, file in zip(paths_here, files, strict=True):
            if file in owner:
                raise ValueError(f"expected each file once, got {file} for both {owner[file]!r} and {path!r}")
            owner[file] = path
        label = [label_from(path) for path in paths_here] if callable(label_from) else columns.get("label")
        if label_from == "splits" and label is None:
            raise ValueError(f"split {split!r}: expected a list 'label' beside 'path'; or pass label_from='file'")
        listings[split] = Listing(
            files,
            take_file_labels=label_from in ("auto", "file"),
            need_file_labels=label_from == "file",
            label=None if label_from == "file" else label,
            source=columns.get("source"),
            view=columns.get("view"),
            psnr=columns.get("psnr"),
        )
    if not listings:
        raise ValueError("splits: expected at least one file in some split, got none")
    if source_of is not None or any(listing.source is None for listing in listings.values()):
        _number_sources(listings, paths, source_of)
    return listings


def _read_splits(path: Path) -> Mapping[str, Any]:
    try:
        table = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: expected a splits.json, got none ({error.strerror}); pass splits=") from error
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got something else: {error}") from error
    if not isinstance(table, dict):
        raise ValueError(f"{path}: expected an object of splits, got {type(table).__name__}")
    return table


def _entry(split: str, entry: Any) -> dict[str, list[Any]]:
    """One split's lists, of one length."""
    columns = dict(entry) if isinstance(entry, Mapping) else {"path": entry}
    columns = {name: columns[name] for name in ("path", *COLUMNS) if columns.get(name) is not None}
    paths = columns.get("path")
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError(
            f"split {split!r}: expected a list of paths, or an object with the list 'path', got {entry!r:.80}"
        )
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != len(paths):
            got = len(values) if isinstance(values, list) else type(values).__name__
            raise ValueError(f"split {split!r}: expected a {name!r} for each of {len(paths)} paths, got {got}")
        for path, value in zip(paths, values, strict=True):
            if problem := _value_problem(name, value):
                raise ValueError(f"split {split!r}, {name!r} of {path!r}: {problem}")
    return columns


def _value_problem(name: str, value: Any) -> str | None:
    """What is wrong with one entry of a list, in words; paths and labels have checks of their own."""
    integer = isinstance(value, Integral) and not isinstance(value, bool) and int(value) in _INT64
    if name == "source" and not integer:
        return f"expected an integer, got {value!r}"
    if name == "view" and not (integer and int(value) >= 0):
        return f"expected an integer of zero or more, got {value!r}"
    if name == "psnr" and not (value is None or (isinstance(value, Real) and not isinstance(value, bool))):
        return f"expected a number of dB, or null where unknown, got {value!r}"
    return None


def _find(folder: Path, path: str) -> Path:
    """The file that a listing means: below the folder, else by the longest end of its path that is there."""
    parts = [part for part in PurePath(path.replace("\\", "/")).parts if part not in ("/", "..")]
    ends = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    for candidate in (folder / path, *ends):
        if candidate.is_file():
            return candidate.resolve()
    raise ValueError(
        f"{path}: no such file, nor any end of that path in {folder}; mend splits.json or pass another folder"
    )


def _number_sources(
    listings: Mapping[str, Listing],
    paths: Mapping[str, Sequence[str]],
    source_of: Callable[[str], Hashable] | None,
) -> None:
    """Give every file a source, in order over all files, and a view within its source."""
    every = [path for split in listings for path in paths[split]]
    keys: list[Any] = list(range(len(every))) if source_of is None else [source_of(path) for path in every]
    if not all(isinstance(key, int) and not isinstance(key, bool) for key in keys):
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        keys = [numbers[key] for key in keys]
    seen, views = dict[int, int](), list[int]()
    for key in keys:
        views.append(seen.setdefault(key, 0))
        seen[key] += 1
    start = 0
    for split, listing in listings.items():
        end = start + len(paths[split])
        listing.source, listing.view, start = keys[start:end], views[start:end], end


def write_spec_file(zoo: Zoo, folder: Path) -> None:
    """Write the spec and the settings of a zoo into the folder of its state dicts."""
    settings = {name: getattr(zoo, name) for name in EXPORTED}
    body = {
        "format": SPEC_FILE_FORMAT,
        "version": SPEC_FILE_VERSION,
        "spec": json.loads(zoo.spec.to_json()),
        **settings,
    }
    write_atomic(folder / SPEC_FILE, json.dumps(body, indent=1, allow_nan=False).encode())


def read_spec_file(folder: Path) -> tuple[NetSpec, dict[str, Any]] | None:
    """Read the spec and the settings that an export wrote into a folder; ``None`` where there is no such file.

    Raises:
        ValueError: for a file of that name that is not one of an export, or is malformed.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        return None
    try:
        body = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got something else: {error}; pass spec=") from error
    found = (body.get("format"), body.get("version")) if isinstance(body, Mapping) else type(body).__name__
    if found != (SPEC_FILE_FORMAT, SPEC_FILE_VERSION):
        raise ValueError(
            f"{path}: expected format {SPEC_FILE_FORMAT!r}, version {SPEC_FILE_VERSION}, as an export writes it, got {found}; pass spec="
        )
    settings = {name: body[name] for name in EXPORTED if name in body}
    try:
        spec = NetSpec.from_json(json.dumps(body.get("spec")))
        check_settings(settings)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: malformed: {error}; export again, or pass spec=") from error
    return spec, settings
