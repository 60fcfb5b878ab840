"""The listing of a folder of state dicts: ``splits.json``, its files, their labels, sources and views."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from os import PathLike
from pathlib import Path, PurePath
from typing import Any, Literal

import torch

from weightspace._files import read_json
from weightspace._networks import COLUMNS, Networks
from weightspace._table import check_name
from weightspace._text import printable
from weightspace._weights import Weights

LabelFrom = Literal["auto", "splits", "file"] | Callable[[str], float]
SourceOf = Callable[[str], Hashable] | str
MOST_LISTING = 1 << 28
"""The largest ``splits.json`` that is read, in bytes: millions of paths."""
NAME = "name"
"""The column that holds the paths of the files as they are listed."""
_MISSPELT = ("labels", "sources", "views", "paths")
_MOST_PATH = 4096
_INT64 = range(-(2**63), 2**63)
_VIEW = re.compile(r"(?i)(?:(?<=[_\-./ ])|^)(?:view|v|seed|rep|run|aug|copy|fit)[_\-]?\d+(?=[_\-./ ]|$)[_\-]?")


@dataclass
class Listing:
    """The files of one split, and what is known of each.

    Args:
        paths: the files' paths as they are listed.
        files: the files.
        take_file_labels: whether labels in the files count, where none are listed.
        need_file_labels: whether every file must have one.
        label: the labels that are listed, a number or ``None`` each.
        source: the signal that each network was fitted to.
        view: which of the fits to its signal each network is.
        psnr: quality of the fits in dB, ``None`` where unknown.
        further: further columns by name, numbers (``None`` where unknown) or texts.
        numbered: whether nothing says which signals the networks were fitted to, and sources are just numbers.
        file_labels: labels that the files hold, once they are read.
    """

    paths: list[str]
    files: list[Path]
    take_file_labels: bool
    need_file_labels: bool = False
    label: list[Any] | None = None
    source: list[int] | None = None
    view: list[int] | None = None
    psnr: list[float] | None = None
    further: dict[str, list[Any]] = field(default_factory=dict)
    numbered: bool = False
    file_labels: list[Any] = field(default_factory=list)

    def labels(self) -> list[float | int | None] | None:
        """Return the label of each file, a whole or a real number or ``None``; ``None`` where nothing says any."""
        found, place = self.label, "splits"
        if found is None and self.take_file_labels:
            found, place = self.file_labels, "file"
        if found is None:
            return None
        return [_label(label, file, place) for label, file in zip(found, self.files, strict=True)]

    def networks(self, weights: Weights, *, real: bool) -> Networks:
        """Return the files' weights as networks, with the columns that are listed.

        Args:
            weights: the weights, in the order of the files.
            real: whether labels are real-valued.

        Raises:
            ValueError: for a file without a label where the others have real-valued ones.
        """
        labels, column = self.labels(), None
        if real and (labels is None or None in labels):
            file = self.files[0 if labels is None else labels.index(None)]
            raise ValueError(f"{file}: expected a label, as the others are real-valued, got none; leave the file out")
        if labels is not None:
            whole = [-1 if label is None else label for label in labels]
            column = torch.tensor(whole, dtype=torch.float32 if real else torch.int64)
        psnr = None if self.psnr is None else [float("nan") if value is None else value for value in self.psnr]
        known = {"source": self.source, "view": self.view, "psnr": psnr}
        columns = {name: v if v is None else torch.tensor(v) for name, v in known.items()}
        return Networks(weights, column, **columns, columns={NAME: self.paths, **self.further})


def _label(label: Any, file: Path, place: str) -> float | int | None:
    """Return a label as a whole number where it is one, else as a real one."""
    if label is None:
        return None
    try:
        real = float(label)
        try:
            whole = int(label)
        except ValueError:  # the text of a fraction
            whole = int(real)
        if float(whole) == real and whole in _INT64:
            return whole
        if not isinstance(label, Integral) and abs(real) <= torch.finfo(torch.float32).max:
            return real
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    raise ValueError(
        f"{file}: expected a number as label, got {label!r:.80} from the {place}; or pass label_from=a function"
    )


def read_listings(
    folder: Path, splits: str | Path | Mapping[str, Any], label_from: LabelFrom, source_of: SourceOf | None
) -> dict[str, Listing]:
    """Read and check the listing, find its files, and number their sources and views.

    Args:
        folder: the folder of the files.
        splits: the listing, or the path of its file relative to the folder.
        label_from: see :func:`import_state_dicts`; likewise ``source_of``.

    Raises:
        TypeError, ValueError: for a listing of another form, or a file that is not there.
    """
    if not callable(label_from) and label_from not in ("auto", "splits", "file"):
        raise ValueError(f"label_from: expected 'auto', 'splits', 'file' or a function, got {label_from!r}")
    if not isinstance(splits, str | PathLike | Mapping):
        raise TypeError(f"splits: expected a mapping, or the path of a JSON file, got {type(splits).__name__}")
    table = splits if isinstance(splits, Mapping) else _read_splits(folder / splits)
    listings, owner, root = dict[str, Listing](), dict[Path, str](), folder.resolve()
    for split, entry in table.items():
        columns = _entry(split, entry)
        if not (paths := columns["path"]):
            continue
        files = [_find(root, path) for path in paths]
        for path, file in zip(paths, files, strict=True):
            if file in owner:
                raise ValueError(f"expected each file once, got {file} for both {owner[file]!r} and {path!r}")
            owner[file] = path
        label = [label_from(path) for path in paths] if callable(label_from) else columns.get("label")
        if label_from == "splits" and label is None:
            raise ValueError(f"split {split!r}: expected a list 'label' beside 'path'; or pass label_from='file'")
        listings[split] = Listing(
            paths,
            files,
            take_file_labels=label_from in ("auto", "file"),
            need_file_labels=label_from == "file",
            label=None if label_from == "file" else label,
            source=columns.get("source"),
            view=columns.get("view"),
            psnr=columns.get("psnr"),
            further={name: values for name, values in columns.items() if name not in ("path", *COLUMNS)},
        )
    if not listings:
        raise ValueError("splits: expected at least one file in some split, got none")
    if source_of is not None and not (callable(source_of) or isinstance(source_of, str)):
        raise TypeError(f"source_of: expected a function or a regular expression, got {type(source_of).__name__}")
    if source_of is not None or any(listing.source is None for listing in listings.values()):
        _number_sources(listings, source_of)
    return listings


def _read_splits(path: Path) -> Mapping[str, Any]:
    try:
        table = read_json(path, "a listing of splits", most=MOST_LISTING)
    except OSError as error:
        raise ValueError(f"{path}: expected a splits.json, got none ({error.strerror}); pass splits=") from error
    if not isinstance(table, dict):
        raise ValueError(f"{path}: expected an object of splits, got {type(table).__name__}")
    return table


def _entry(split: str, entry: Any) -> dict[str, list[Any]]:
    """Return the lists of one split by name, all of one length."""
    columns = dict(entry) if isinstance(entry, Mapping) else {"path": entry}
    if unknown := [name for name in columns if name in _MISSPELT]:
        raise ValueError(
            f"split {split!r}: expected the lists 'path', {str(COLUMNS)[1:-1]} and further columns, got "
            f"{str(unknown)[1:-1]:.200}; call it {unknown[0].removesuffix('s')!r}"
        )
    for name in columns:
        if name not in ("path", *COLUMNS):
            try:
                check_name(name)
            except ValueError as error:
                raise ValueError(f"split {split!r}: {error}") from error
    columns = {name: values for name, values in columns.items() if values is not None}
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
    """Say what is wrong with one entry of a list; ``None`` if nothing is. Paths and labels have checks of their own."""
    integer = isinstance(value, Integral) and not isinstance(value, bool) and int(value) in _INT64
    if name == "source" and not integer:
        return f"expected an integer, got {value!r:.80}"
    if name == "view" and not (integer and int(value) >= 0):
        return f"expected an integer of zero or more, got {value!r:.80}"
    if name == "psnr" and not (value is None or (isinstance(value, Real) and not isinstance(value, bool))):
        return f"expected a number of dB, or null where unknown, got {value!r:.80}"
    return None


def _find(folder: Path, path: str) -> Path:
    """Return the file that a listing means: below the folder, else by the longest end of its path that is there.

    Raises:
        ValueError: if there is none, or only one outside of the folder: a listing must not name the files of others.
    """
    outside = False
    if len(path) <= _MOST_PATH and "\0" not in path:
        parts = [part for part in PurePath(path.replace("\\", "/")).parts if part not in ("/", "..")]
        ends = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
        for candidate in (folder / path, *ends):
            with contextlib.suppress(OSError):  # such as a name that is too long for a file
                if candidate.is_file():
                    if (found := candidate.resolve()).is_relative_to(folder):
                        return found
                    outside = True
    shown = printable(path[:200])
    if outside:
        raise ValueError(
            f"{shown}: expected a file in {folder}, got one outside of it; copy it there, or pass another folder"
        )
    raise ValueError(
        f"{shown}: no such file, nor any end of that path in {folder}; mend splits.json or pass another folder"
    )


def _number_sources(listings: Mapping[str, Listing], source_of: SourceOf | None) -> None:
    """Number the sources, in order over all files, and the views within each source."""
    every = [path for listing in listings.values() for path in listing.paths]
    keys: list[Any] = list(range(len(every))) if source_of is None else keys_by(source_of, every)
    if not all(isinstance(key, int) and not isinstance(key, bool) for key in keys):
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        keys = [numbers[key] for key in keys]
    seen, views = dict[int, int](), list[int]()
    for key in keys:
        views.append(seen.setdefault(key, 0))
        seen[key] += 1
    start = 0
    for listing in listings.values():
        end = start + len(listing.paths)
        listing.source, listing.view, start = keys[start:end], views[start:end], end
        listing.numbered = source_of is None


def keys_by(source_of: SourceOf, paths: Sequence[str]) -> list[Any]:
    """Return the signal that each file was fitted to, as a function or a regular expression says."""
    function = _by_pattern(source_of) if isinstance(source_of, str) else source_of
    return [function(path) for path in paths]


def _by_pattern(text: str) -> Callable[[str], Hashable]:
    """Return the function that reads the source off a path: the groups of a regular expression, or all it matches."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"source_of: expected a regular expression, got {text!r}: {error}") from error

    def source_of(path: str) -> Hashable:
        if (found := pattern.search(path)) is None:
            raise ValueError(f"source_of: expected {text!r} to match every path, got {path!r:.200}, which it does not")
        return found.groups() or found.group()

    return source_of


def look_alike(listing: Mapping[str, Listing], labels: Mapping[str, Sequence[Any]]) -> tuple[str, str] | None:
    """Return two files whose names say that they were fitted to one signal; ``None`` where no names say so.

    Such names differ in the number of a view alone (``dog_v0.pth``, ``dog_v1.pth``), or in the folder alone, with the
    same label (``seed0/dog.pth``, ``seed1/dog.pth``).

    Args:
        listing: the files of each split.
        labels: their labels.
    """
    files = [
        (path, label) for split, own in listing.items() for path, label in zip(own.paths, labels[split], strict=True)
    ]
    for name_of in (lambda path: _VIEW.sub("", path), lambda path: PurePath(path).name):
        seen = dict[Any, str]()
        names = [(name_of(path), label) for path, label in files]
        if len({name for name, _ in names}) == 1:
            continue  # numbers of networks, or files that are all called alike, say nothing of signals
        for (path, _), name in zip(files, names, strict=True):
            if (first := seen.setdefault(name, path)) != path:
                return first, path
    return None
