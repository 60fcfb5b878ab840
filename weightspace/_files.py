"""Files and folders that are written whole or not at all, and JSON that is read with bounds."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import itertools
import json
import os
import shutil
import stat
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weightspace._lock import LOCK, lock

TEMPORARY = ".weightspace-tmp"
MOST_JSON = 1 << 24
"""The largest JSON file that :func:`read_json` reads where its caller states no other limit, in bytes."""
MOST_RATIO = 100
"""How many times its size the content of a compressed file may have; smaller contents than 64 MiB always may."""
_LEAST_UNPACKED = 1 << 26
_MOST_DEPTH = 100
_MOST_DIGITS = 100
_MOST_NAME = 150
_PROCESS = uuid.uuid4().hex[:8]  # machines that share a folder may well have processes of one number
_NUMBERS = itertools.count()
_TIDY = set[str]()


def temporary(path: Path) -> Path:
    """Return a name under which to write ``path`` before it gets its own: hidden, beside it, never the same twice."""
    return path.with_name(f"{_hidden(path)}{os.getpid()}-{_PROCESS}-{next(_NUMBERS)}{TEMPORARY}")


def _hidden(path: Path) -> str:
    """Return the beginning of all temporary names of a path, which the hash replaces where the name is long."""
    name = os.fsencode(path.name)
    return f".{path.name if len(name) <= _MOST_NAME else hashlib.sha256(name).hexdigest()}."


def write_atomic(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write ``data`` to ``path``: after a crash at any moment the file is the old one or the new one, whole.

    Without ``sync`` this holds for crashes of the process; a power cut may leave the new file empty. The first write of
    a process into a folder also removes the temporary files that killed processes left there.

    Raises:
        OSError: if the disk is full or the folder is not writable, with the file's name; the old file stays, and no
            temporary one is left.
    """
    temp = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _tidy_once(path.parent)
        temp, handle = _create(path)
        with open(handle, "wb", buffering=0) as file:  # open, and so locked, until the file has its name
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            if sync:
                os.fsync(file.fileno())
            os.replace(temp, path)
        if sync:
            sync_folder(path.parent)
    except BaseException as error:
        if temp is not None:
            with contextlib.suppress(OSError):
                temp.unlink()
        if isinstance(error, OSError):
            raise _unwritten(path, error, f" ({len(data)} bytes)") from error
        raise


def _unwritten(path: Path, error: OSError, size: str = "") -> OSError:
    reason = error.strerror or str(error)
    return OSError(
        error.errno, f"could not write {path}{size}: {reason}; free some space or mend the folder, run again"
    )


def _create(path: Path) -> tuple[Path, int]:
    """Create a temporary file of ``path`` and lock it, so that no other process takes it for one that was left."""
    while True:
        temp = temporary(path)
        handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        if lock(handle) is not False and os.fstat(handle).st_nlink:
            return temp, handle
        os.close(handle)  # another process removed it before it was locked


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Make a folder to fill that becomes ``path`` at the end, or vanishes if anything is raised on the way.

    The stage is a hidden folder beside ``path``, locked while its process lives. Stages that killed processes left
    behind on their way to the same path are removed first.

    Raises:
        ValueError: if ``path`` is no empty folder in the end, as another process has filled it.
        OSError: if the folder cannot be made.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, of=path)
    stage, handle = _make_stage(path)
    try:
        yield stage
        if path.exists():
            remove_leftovers(path)
            _remove_abandoned(path / LOCK)
        try:
            os.replace(stage, path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise ValueError(
                    f"{path}: expected a new or empty folder, got one that another process has written meanwhile; "
                    "write to another folder"
                ) from error
            raise _unwritten(path, error) from error
        sync_folder(path.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        os.close(handle)


def _make_stage(path: Path) -> tuple[Path, int]:
    """Make the stage of ``path`` and lock it, so that no other process takes it for one that was left."""
    while True:
        stage = temporary(path)
        stage.mkdir()
        try:
            handle = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another process removed it before it was locked
        if lock(handle) is not False and stage.exists():
            return stage, handle
        os.close(handle)


def check_empty(path: Path, manifest: str) -> None:
    """Raise ``ValueError`` unless ``path`` is a folder to be made, or one that holds nothing but temporary files."""
    check_place(path)
    if (path / manifest).exists():
        raise ValueError(f"{path}: expected a new or empty folder, got a zoo; resume it or write to another folder")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: expected a new or empty folder, got a file; write to another folder")
    if path.exists() and (other := [entry.name for entry in os.scandir(path) if not _is_temporary(entry)]):
        raise ValueError(
            f"{path}: expected a new or empty folder, got one that holds {sorted(other)[0]!r} and is no zoo; "
            "write to another folder"
        )


def check_place(path: Path) -> None:
    """Raise unless a file or folder could be made at ``path``; long work asks before it begins.

    Raises:
        NotADirectoryError: if something above it is a file.
        PermissionError: if the folder that it would be made in is not writable.
    """
    above = path.absolute().parent
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{path}: expected a place in a folder, got the file {above}")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{path}: expected a folder to write to, got one without permission")


def _is_temporary(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is a plain file of ours; a link is not, as it would be written through."""
    return entry.is_file(follow_symlinks=False) and (entry.name.endswith(TEMPORARY) or entry.name == LOCK)


def check_own_folder(path: Path) -> None:
    """Raise ``ValueError`` if ``path`` is a symbolic link: nothing may be written or removed through one."""
    if path.is_symlink():
        raise ValueError(f"{path}: expected a folder of the zoo, got a symbolic link; put the folder itself there")


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, *, of: Path | None = None) -> None:
    """Delete the temporary files that killed processes left in a folder.

    What a living process writes is locked, and stays. Where the file system has no locks, everything stays.

    Args:
        folder: where to look.
        of: a path in the folder: its temporary files and its stages are deleted, and no others.
    """
    begin = "." if of is None else _hidden(of)
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.name.startswith(begin) and entry.name.endswith(TEMPORARY)]
        for entry in found:
            if of is not None or not entry.is_dir(follow_symlinks=False):
                _remove_abandoned(Path(entry.path))


def _tidy_once(folder: Path) -> None:
    """Remove the leftovers of a folder when the process writes there for the first time."""
    if (place := str(folder.absolute())) not in _TIDY:
        _TIDY.add(place)
        remove_leftovers(folder)


def _remove_abandoned(path: Path) -> None:
    """Delete a plain file or a folder that no living process holds locked."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return  # it is gone, or a link, or not ours to read
    try:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            if lock(handle):
                shutil.rmtree(path, ignore_errors=True)
        elif stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and lock(handle):
            with contextlib.suppress(OSError):
                path.unlink()
    finally:
        os.close(handle)


def read_json(
    path: str | Path, what: str, *, most: int = MOST_JSON, finite: bool = False, remedy: str | None = None
) -> Any:
    """Read a JSON file that may be damaged or hostile.

    Args:
        path: the file.
        what: what it should be, for the message, such as ``"a zoo manifest"``.
        most: the largest size to read, in bytes.
        finite: whether ``NaN`` and ``Infinity``, which are no JSON but which Python writes, are refused.
        remedy: what to do if it is something else, for the message.

    Raises:
        OSError: if it is not there or may not be read.
        ValueError: for something other than a plain file of JSON, with the file's name: one that is too large, that is
            nested more than 100 deep, or that holds a whole number of more than 100 digits.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "a.json")
        >>> _ = path.write_text("[" * 1000)
        >>> read_json(path, "a list")
        Traceback (most recent call last):
        ValueError: ...a.json: expected a list in JSON, got something else: ...
    """
    path, then = Path(path), f"; {remedy}" if remedy else ""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"{path}: expected {what} in JSON, got something other than a file{then}")
    with open(handle, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path}: expected {what} of at most {most / 2**20:g} MiB, got a larger file{then}")
    try:
        return parse_json(data, finite=finite)
    except ValueError as error:
        raise ValueError(f"{path}: expected {what} in JSON, got something else: {error}{then}") from error


def parse_json(data: bytes | str, *, finite: bool = False) -> Any:
    """Parse JSON that may be damaged or hostile.

    Raises:
        ValueError: for something else, values nested more than 100 deep, and whole numbers of more than 100 digits.
    """
    try:
        found = json.loads(data, parse_int=_whole, parse_constant=_refuse if finite else None)
        _check_depth(found)
    except RecursionError as error:
        raise ValueError("too deeply nested") from error
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number of JSON")


def _whole(digits: str) -> int:
    """Read a whole number that a float can hold: a larger one would overflow wherever it is computed with."""
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _check_depth(value: Any) -> None:
    """Raise ``RecursionError`` for lists and objects that are nested so deep that writing them again would fail."""
    level = [value]
    for _ in range(_MOST_DEPTH):
        level = [
            part
            for own in level
            if isinstance(own, dict | list)
            for part in (own.values() if isinstance(own, dict) else own)
            if isinstance(part, dict | list)
        ]
        if not level:
            return
    raise RecursionError


def most_unpacked(size: int) -> int:
    """Return how many bytes the content of a compressed file of ``size`` bytes may take: 100 times that, or 64 MiB."""
    return max(_LEAST_UNPACKED, MOST_RATIO * size)


def unzip(data: bytes, where: str | Path) -> bytes:
    """Unpack a gzip file whose content is of a size that fits it.

    Raises:
        ValueError: for content beyond :func:`most_unpacked`, or another or a damaged file; the message names ``where``.
    """
    most = most_unpacked(len(data))
    try:
        with gzip.open(io.BytesIO(data)) as file:
            content = file.read(most + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{where}: expected a gzip file, got {error}; fetch it again") from error
    if len(content) > most:
        raise ValueError(
            f"{where}: expected content of at most {MOST_RATIO} times the file's {len(data)} bytes, got more; unpack it"
        )
    return content


def sha256(path: Path) -> str:
    """Return the hash of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
