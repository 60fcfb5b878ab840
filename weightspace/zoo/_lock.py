"""One writer at a time: a lock file in the zoo's folder, which the system lets go when its process dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weightspace._files import LOCK

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class FolderLock:
    """Held from its making until :meth:`release`, the end of the object or the end of the process, however that comes.

    The lock is ``flock`` on a file that says who holds it. A file that a dead process left behind does not block. On
    a file system without locks the file's existence is the lock, and it is stale when its process is gone.

    Args:
        folder: what to lock; it must exist.

    Raises:
        ValueError: if somebody holds the lock, saying who.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._handle = _acquire(self._path)
        self._finalizer = weakref.finalize(self, _release, self._path, self._handle, os.getpid())

    @property
    def held(self) -> bool:
        return self._finalizer.alive

    def release(self) -> None:
        """Let go and remove the file; a second call does nothing."""
        self._finalizer()


def _acquire(path: Path) -> int:
    """The open handle of the lock file, locked and with this process' name in it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _locked(handle):
                raise _busy(path, _holder(handle))
            if not _is_at(handle, path):  # its holder removed it while this one waited for the handle
                os.close(handle)
                continue
            since = datetime.now(UTC).isoformat(timespec="seconds")
            me = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(me).encode(), 0)
            return handle
        except BaseException:
            os.close(handle)
            raise


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        return not _alive(_holder(handle))
    return True


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the process of a lock file may still be there; one on another machine always may."""
    if not holder or holder.get("host") != socket.gethostname():
        return bool(holder)
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, KeyError, TypeError, ValueError):
        return True
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(os.pread(handle, 4096, 0) or b"{}")
        return found if isinstance(found, dict) else {}
    return {}


def _busy(path: Path, holder: dict[str, Any]) -> ValueError:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')} since {holder.get('since', '?')}"
    return ValueError(
        f"{path.parent}: expected a zoo that nobody writes to, got one that {who} writes to; "
        f"wait until it ends, or write to another folder (if that process is gone, remove {path})"
    )


def _release(path: Path, handle: int, owner: int) -> None:
    if os.getpid() != owner:  # a copy of the process does not hold what the process holds
        return
    with contextlib.suppress(OSError):
        if _is_at(handle, path):
            path.unlink()
    with contextlib.suppress(OSError):
        os.close(handle)
