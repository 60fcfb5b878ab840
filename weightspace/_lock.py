"""Locks that the system releases when their process dies: one writer of a folder, one user of a file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weightspace._text import printable

LOCK = ".weightspace-lock"
"""Name of the file in a zoo's folder that one writer at a time holds locked."""
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def lock(handle: int) -> bool | None:
    """Lock an open file or folder without waiting.

    Returns:
        ``True`` if it is locked now, ``False`` if another handle holds it, ``None`` if the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (*WITHOUT_LOCKS, errno.EBADF):  # NFS locks no folder, and says EBADF
            return None
        raise
    return True


class FolderLock:
    """A lock that keeps other writers out of a folder until :meth:`release`, or the end of the object or the process.

    The lock is ``flock`` on a file that names the process that holds it. A file that a dead process left behind does
    not block. On a file system without locks the file's existence is the lock, and it is stale when its process is
    gone.

    Args:
        folder: the folder to lock; it must exist.

    Raises:
        ValueError: if another writer holds the lock, with its process; or if the lock file is a link or no plain file.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._handle = _acquire(self._path)
        self._finalizer = weakref.finalize(self, _release, self._path, self._handle, os.getpid())

    @property
    def held(self) -> bool:
        """Whether the lock has not been released."""
        return self._finalizer.alive

    def release(self) -> None:
        """Release the lock and remove the file; a second call does nothing."""
        self._finalizer()


def _acquire(path: Path) -> int:
    """Return the open handle of the lock file, locked and with this process named in it."""
    while True:
        handle = _open(path)
        try:
            if not _locked(handle):
                raise _busy(path, _holder(handle))
            if not _is_at(handle, path):  # its holder removed it after this process opened it
                os.close(handle)
                continue
            if os.fstat(handle).st_nlink != 1:
                raise _not_plain(path, "a file of several names")
            since = datetime.now(UTC).isoformat(timespec="seconds")
            me = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(me).encode(), 0)
            return handle
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(handle)
            raise


def _open(path: Path) -> int:
    """Open the lock file itself: through a link, a foreign folder could have any file overwritten."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise _not_plain(path, "a symbolic link" if error.errno == errno.ELOOP else "a folder") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _not_plain(path, "a device or pipe")
    return handle


def _not_plain(path: Path, got: str) -> ValueError:
    return ValueError(f"{path}: expected a plain file to lock, got {got}; remove it, or write to another folder")


def _locked(handle: int) -> bool:
    """Lock the handle; on a file system without locks, ask whether the process that the file names is there."""
    found = lock(handle)
    return found if found is not None else not _alive(_holder(handle))


def _alive(holder: dict[str, Any]) -> bool:
    """Return whether the process that a lock file names may still be there; one on another machine always may."""
    if not holder or holder.get("host") != socket.gethostname():
        return bool(holder)
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, KeyError, TypeError, ValueError, OverflowError):
        return True
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Return whether the open file is the one that the path names."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> dict[str, Any]:
    """Read which process holds the lock; nothing where the file does not say."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(os.pread(handle, 4096, 0) or b"{}")
        return found if isinstance(found, dict) else {}
    return {}


def _busy(path: Path, holder: dict[str, Any]) -> ValueError:
    process, host, since = (printable(holder.get(name, "?"))[:100] for name in ("pid", "host", "since"))
    return ValueError(
        f"{path.parent}: expected a zoo that nobody writes to, got one that process {process} on {host} since {since} "
        f"writes to; wait until it ends, or write to another folder (if that process is gone, remove {path})"
    )


def _release(path: Path, handle: int, owner: int) -> None:
    if os.getpid() != owner:  # a forked copy of the process does not hold what the process holds
        return
    with contextlib.suppress(OSError):
        if _is_at(handle, path):
            path.unlink()
    with contextlib.suppress(OSError):
        os.close(handle)
