"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".weightspace-tmp"
LOCK = ".weightspace-lock"
"""Name of the file in a zoo's folder that one writer at a time holds locked."""
_PROCESS = uuid.uuid4().hex[:8]  # machines that share a folder may well have processes of one number


def temporary(path: Path) -> Path:
    """The name under which ``path`` is written before it gets its own, in the same folder."""
    return path.with_name(f".{path.name}.{os.getpid()}-{_PROCESS}{TEMPORARY}")


def write_atomic(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write ``data`` to ``path``: after a crash at any moment the file is the old one or the new one, whole.

    Without ``sync`` this holds for crashes of the process; a power cut may leave the new file empty.

    Raises:
        OSError: if the disk is full or the folder is not writable; the old file stays, no temporary one is left.
    """
    temp = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temp, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            if sync:
                os.fsync(file.fileno())
        os.replace(temp, path)
        if sync:
            sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temp.unlink()
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            message = (
                f"could not write {path} ({len(data)} bytes): {reason}; free some space or mend the folder, run again"
            )
            raise OSError(error.errno, message) from error
        raise


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path`` at the end, or vanishes if anything is raised on the way."""
    path = path.resolve()
    stage = temporary(path)
    try:
        stage.mkdir(parents=True)
        yield stage
        if path.exists():
            remove_leftovers(path)
        os.replace(stage, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def check_empty(path: Path, manifest: str) -> None:
    """Raise ``ValueError`` unless ``path`` is a folder to be made, or an empty one."""
    if (path / manifest).exists():
        raise ValueError(f"{path}: expected a new or empty folder, got a zoo; resume it or write to another folder")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: expected a new or empty folder, got a file; write to another folder")
    if path.exists() and (other := [p.name for p in path.iterdir() if not p.name.endswith((TEMPORARY, LOCK))]):
        raise ValueError(
            f"{path}: expected a new or empty folder, got one that holds {sorted(other)[0]!r} and is no zoo; "
            "write to another folder"
        )


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a crash left in ``folder``."""
    for leftover in folder.glob(f".*{TEMPORARY}"):
        if leftover.is_file() or leftover.is_symlink():
            leftover.unlink()


def sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
