"""Files and folders written whole or not at all, what killed processes leave, JSON with bounds, and text made safe."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weightspace import _files, _lock
from weightspace._files import check_empty, check_place, read_json, remove_leftovers, staged, write_atomic
from weightspace._lock import LOCK, FolderLock
from weightspace._text import printable

LONG = "n" * 255


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def run(code: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    script = "import os, signal, sys\nfrom pathlib import Path\nfrom weightspace import _files\n" + textwrap.dedent(
        code
    )
    return subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)


# Files.


@pytest.mark.parametrize("name", ["a.json", "naïve 数.json", LONG])
@pytest.mark.parametrize("sync", [True, False])
def test_a_file_is_replaced(tmp_path: Path, name: str, sync: bool) -> None:
    path = tmp_path / "new" / name
    for data in (b"one", b"", b"three" * 99):
        write_atomic(path, data, sync=sync)
        assert path.read_bytes() == data
        assert [file.name for file in path.parent.iterdir()] == [name]


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("precious")
    (tmp_path / "a").symlink_to(tmp_path / "other")
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "other").read_text() == "precious"
    assert not (tmp_path / "a").is_symlink()


def test_an_error_names_the_file_and_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "a", b"old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for call in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(
                OSError, match=r"could not write .*/a \(3 bytes\): No space left on device; free"
            ) as caught:
                write_atomic(tmp_path / "a", b"new")
        assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match=r"could not write .*/b/c \(1 bytes\)"):
        write_atomic(tmp_path / "a" / "b" / "c", b"x")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_many_threads_write_one_file(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for _ in range(20):
                write_atomic(tmp_path / "a", bytes([number]) * 1000, sync=False)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = (tmp_path / "a").read_bytes()
    assert len(found) == 1000
    assert len(set(found)) == 1
    assert hidden(tmp_path) == []


KILLED_FILE = """
    def die(*_): os.kill(os.getpid(), signal.SIGKILL)
    os.replace = die
    _files.write_atomic(Path(sys.argv[1]), b"half")
"""
KILLED_STAGE = """
    with _files.staged(Path(sys.argv[1])) as stage:
        (stage / "shards").mkdir()
        (stage / "shards" / "a").write_text("large")
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["last.pt", LONG])
def test_the_next_process_removes_what_a_killed_one_left(tmp_path: Path, name: str) -> None:
    assert run(KILLED_FILE, tmp_path / name).returncode == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 1
    done = run('_files.write_atomic(Path(sys.argv[1]), b"x")', tmp_path / "another")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["another"]


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    temp, handle = _files._create(tmp_path / "a")
    run('_files.write_atomic(Path(sys.argv[1]), b"x")', tmp_path / "b")
    remove_leftovers(tmp_path)
    assert temp.exists()
    os.close(handle)
    remove_leftovers(tmp_path)
    assert not temp.exists()


def test_only_plain_files_of_ours_are_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / f".link{_files.TEMPORARY}").symlink_to(tmp_path / "precious")
    os.link(tmp_path / "precious", tmp_path / f".hard{_files.TEMPORARY}")
    (tmp_path / f".folder{_files.TEMPORARY}").mkdir()
    os.mkfifo(tmp_path / f".pipe{_files.TEMPORARY}")
    before = sorted(path.name for path in tmp_path.iterdir())
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    remove_leftovers(tmp_path / "nowhere")


# Folders.


def stop_in_stage(path: Path, fill: Callable[[Path], Any]) -> None:
    with staged(path) as stage:
        fill(stage)
        raise KeyError


@pytest.mark.parametrize("name", ["zoo", LONG])
def test_a_stage_becomes_the_folder_or_vanishes(tmp_path: Path, name: str) -> None:
    with staged(tmp_path / name) as stage:
        (stage / "a").write_text("x")
        assert not (tmp_path / name).exists()
    assert [path.name for path in tmp_path.rglob("*")] == [name, "a"]
    with pytest.raises(KeyError):
        stop_in_stage(tmp_path / "other", lambda stage: (stage / "a").write_text("x"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["zoo", LONG])
def test_the_next_stage_of_the_same_path_removes_those_of_killed_processes(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        assert run(KILLED_STAGE, tmp_path / name).returncode == -signal.SIGKILL
    assert run(KILLED_STAGE, tmp_path / "other").returncode == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 2  # the second removed that of the first
    with staged(tmp_path / name) as stage:
        seen: list[Path] = []
        with pytest.raises(KeyError):
            stop_in_stage(tmp_path / name, seen.append)
        assert seen != [stage]
        assert stage.exists()  # it belongs to a living process
    (left,) = hidden(tmp_path)
    assert left.startswith(".other.")
    assert (tmp_path / name).is_dir()


def test_the_loser_of_two_is_refused(tmp_path: Path) -> None:
    def lose() -> None:
        with staged(tmp_path / "zoo"):
            (tmp_path / "zoo").mkdir()
            (tmp_path / "zoo" / "theirs").write_text("x")

    with pytest.raises(
        ValueError, match="zoo: expected a new or empty folder, got one that another process has written"
    ):
        lose()
    assert [path.name for path in tmp_path.rglob("*")] == ["zoo", "theirs"]


def test_a_folder_that_a_killed_writer_left_empty_is_taken(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    run(KILLED_FILE, tmp_path / "zoo" / "manifest.json")
    (tmp_path / "zoo" / LOCK).write_text("{}")
    check_empty(tmp_path / "zoo", "manifest.json")
    with staged(tmp_path / "zoo") as stage:
        (stage / "a").write_text("x")
    assert [path.name for path in (tmp_path / "zoo").iterdir()] == ["a"]


@pytest.mark.parametrize("name", [LOCK, f".x{_files.TEMPORARY}"])
def test_a_link_is_not_an_empty_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="expected a new or empty folder, got one that holds"):
        check_empty(tmp_path / "zoo", "manifest.json")


# Locks.


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda path, victim: path.symlink_to(victim), "a symbolic link"),
        (lambda path, victim: path.symlink_to(victim.with_name("nowhere")), "a symbolic link"),
        (lambda path, victim: os.link(victim, path), "a file of several names"),
        (lambda path, victim: os.mkfifo(path), "a device or pipe"),
        (lambda path, victim: path.mkdir(), "a folder"),
    ],
)
def test_a_lock_file_that_is_none_is_refused_and_untouched(
    tmp_path: Path, make: Callable[[Path, Path], Any], got: str
) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "zoo"
    victim.write_text("precious data")
    folder.mkdir()
    make(folder / LOCK, victim)
    with pytest.raises(ValueError, match=f"{LOCK}: expected a plain file to lock, got {got}; remove it"):
        FolderLock(folder)
    assert victim.read_text() == "precious data"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim", "zoo"]


def test_the_holder_of_a_lock_is_shown_without_what_a_terminal_obeys(tmp_path: Path, monkeypatch: Any) -> None:
    lock = FolderLock(tmp_path)
    (tmp_path / LOCK).write_text(json.dumps({"pid": "\x1b[2J", "host": "a" * 500, "since": "\n"}))
    with pytest.raises(ValueError, match="expected a zoo that nobody writes to") as caught:
        FolderLock(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    lock.release()
    assert _lock.lock(os.open(tmp_path, os.O_RDONLY)) is True


# JSON.


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "a.json: expected a thing in JSON, got something else: Expecting value"),
        (b"{", "got something else: Expecting property name"),
        (b"\xff\xfe\xfa", "got something else: "),
        (b"[" * 100_000, "got something else: "),
        (nested(101).encode(), "got something else: too deeply nested"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "too deeply nested"),
        (b"1" * 101, "got something else: a whole number of 101 digits"),
        (b"[-" + b"1" * 10_000 + b"]", "a whole number of 10001 digits"),
        (b"[" + b" " * 2000 + b"]", r"expected a thing of at most .* MiB, got a larger file"),
    ],
)
def test_json_refused(tmp_path: Path, text: bytes, match: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=match):
        read_json(path, "a thing", most=1000 if b"  " in text else 1 << 20)


def test_json_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for value in ({"a": [1, -2, 0.5, None, True, "x"]}, 10**99, json.loads(nested(100)), "\ud800", [[], {}] * 10_000):
        path.write_text(json.dumps(value))
        assert read_json(path, "a thing") == value
    assert read_json(str(path), "a thing") == value


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for name, error in {"pipe": ValueError, "nowhere": FileNotFoundError, ".": ValueError}.items():
        with pytest.raises(error, match=re.escape(str(tmp_path / name))):
            read_json(tmp_path / name, "a thing")


# Text.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, naïve 数 🐈", "plain text, naïve 数 🐈"),
        ("\x1b]0;pwned\x07\x1b[2J", r"\x1b]0;pwned\x07\x1b[2J"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("\u202egnp.exe\u2028", r"\u202egnp.exe\u2028"),
        ("\ud800", r"\ud800"),
        (12, "12"),
        (None, "None"),
    ],
)
def test_text_made_safe(text: Any, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode()
    assert printable(text).isprintable()


def test_places_that_cannot_be_written_are_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"x: expected a place in a folder, got the file .*file"):
        check_place(tmp_path / "file" / "deep" / "x")
    check_place(tmp_path / "new" / "deep" / "x")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a superuser may write anywhere
    with pytest.raises(PermissionError, match=r"x: expected a folder to write to, got one without permission"):
        check_place(tmp_path / "new" / "x")
