"""Fits that are killed, run into a full disk, or meet each other in one folder: nothing lost, nothing doubled."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weightspace as ws
from weightspace import _lock
from weightspace._lock import LOCK, FolderLock
from weightspace.zoo import ZooWriter, verify

SPEC = ws.siren(2, 6, 1)
CONFIG = ws.FitConfig(steps=15, lr=5e-3, views=2, seed=3)
KILLS, MANY = 20, 120


def data(count: int = 40) -> ws.signals.ImageSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 6, 6), dtype=np.uint8)
    labels, test = rng.integers(0, 3, count), count // 4
    return ws.signals.ImageSet(images, labels, splits={"train": range(test, count), "test": range(test)}, name="toy")


def fit(path: Path, count: int = 40, **options: Any) -> ws.Zoo:
    return ws.fit_zoo(path, data(count), SPEC, **{"config": CONFIG, "shard_size": 2, "workers": 1, **options})


def content(path: Path, count: int = 40) -> dict[str, bytes]:
    """All files but for the moment of creation; nothing else may be in the folder."""
    zoo = ws.Zoo.open(path, verify=True)
    assert verify(zoo, data(count), sample=20) == []
    files = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    manifest = json.loads(files.pop("manifest.json"))
    assert set(files) == {shard.file for shard in zoo.shards}
    assert manifest["provenance"].pop("created")
    return {**files, "manifest.json": json.dumps(manifest).encode()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "zoo"
    fit(folder)
    return content(folder)


KILLER = """
    import os, pathlib, random, signal, sys
    sys.path.insert(0, sys.argv[1])
    import test_crash as t

    folder, moments = pathlib.Path(sys.argv[2]), random.Random(0)
    t.torch.set_num_threads(1)
    t.fit(folder.with_name("whole"), t.MANY)  # imports and compiles everything too

    def dies_at(event, after):
        # a process changes the disk by these two calls alone: any moment of a kill looks like one of them
        def counted(call):
            def counting(*arguments):
                nonlocal event
                event -= 1
                if event == 0 and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                call(*arguments)
                if event == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return counting
        os.replace, os.fsync = counted(os.replace), counted(os.fsync)

    for kill in range(t.KILLS):
        event = moments.randint(3, 15)
        child = os.fork()
        if child == 0:
            dies_at(event, after=kill % 2 == 1)
            t.fit(folder, t.MANY)
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        print(int(killed), len(list(folder.glob("shards/*.safetensors"))), flush=True)
"""


def test_twenty_kills_at_every_kind_of_moment(tmp_path: Path) -> None:
    """SIGKILL again and again, the same command each time: shards only become more, and end as if nothing had been."""
    script = [sys.executable, "-c", textwrap.dedent(KILLER), str(Path(__file__).parent), str(tmp_path / "zoo")]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    found = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    killed, shards = [k for k, _ in found], [count for _, count in found]
    assert killed == [1] * KILLS
    assert shards == sorted(shards)
    assert len(set(shards)) > KILLS // 2, found
    assert shards[-1] < MANY // 2, found  # none of them came after the end
    fit(tmp_path / "zoo", MANY)
    assert content(tmp_path / "zoo", MANY) == content(tmp_path / "whole", MANY)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, expected: dict[str, bytes]) -> None:
    with pytest.raises(OSError, match="No space left on device; free some space") as caught:
        fit(small_disk / "zoo")
    assert caught.value.errno == errno.ENOSPC
    assert not [path.name for path in (small_disk / "zoo").rglob(".*")]
    found = ws.Zoo.open(small_disk / "zoo", allow_incomplete=True, verify=True)
    done = {shard.file for shard in found.shards if shard.done}
    assert 0 < len(done) < len(found.shards)
    kept = {file: (small_disk / "zoo" / file).stat().st_mtime_ns for file in done}
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    fit(small_disk / "zoo")
    assert content(small_disk / "zoo") == expected
    assert {file: (small_disk / "zoo" / file).stat().st_mtime_ns for file in done} == kept


def test_a_limit_on_files(tmp_path: Path, expected: dict[str, bytes]) -> None:
    """Where no file system can be mounted, a limit on the size of files refuses the writing just as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(done: int, total: int, psnr: torch.Tensor) -> None:
        if done >= 40:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))

    try:
        with pytest.raises(OSError, match=r"could not write .*safetensors .*File too large"):
            fit(tmp_path / "zoo", on_progress=limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = ws.Zoo.open(tmp_path / "zoo", allow_incomplete=True)  # the manifest could not be written: records stand
    assert sum(shard.done for shard in found.shards) >= 9
    fit(tmp_path / "zoo")
    assert content(tmp_path / "zoo") == expected


DAMAGES = {
    "truncated": lambda whole, other: whole[:-7],
    "emptied": lambda whole, other: b"",
    "bit flipped": lambda whole, other: whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:],
    "replaced": lambda whole, other: other,
    "gone": lambda whole, other: None,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("stage", ["finished", "killed"])
def test_a_damaged_shard_is_noticed_and_made_again(
    tmp_path: Path, expected: dict[str, bytes], damage: str, stage: str
) -> None:
    """Whether the manifest tells of the shard, or only the record that a killed fit left beside it."""
    fit(tmp_path / "zoo")
    file, other = (tmp_path / "zoo" / "shards" / f"train-0000{number}.safetensors" for number in (1, 2))
    if stage == "killed":
        unfinish(tmp_path / "zoo")
    new = DAMAGES[damage](file.read_bytes(), other.read_bytes())
    file.unlink() if new is None else file.write_bytes(new)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "zoo" / "shards").glob("*.safetensors")}
    if stage == "finished":
        with pytest.raises(ValueError, match=r"train-00001.safetensors is (altered|truncated|missing)"):
            ws.Zoo.open(tmp_path / "zoo").weights("train")
    seen: list[int] = []
    fit(tmp_path / "zoo", on_progress=lambda done, total, psnr: seen.append(len(psnr)))
    assert sum(seen) == 4  # one shard of two images in two views
    assert content(tmp_path / "zoo") == expected
    assert all(path.stat().st_mtime_ns == then for path, then in before.items() if path != file)


def unfinish(path: Path) -> None:
    """Turn the manifest and records into what they were just before the commit."""
    from dataclasses import replace

    from weightspace.zoo._format import Manifest
    from weightspace.zoo._target import _record_path, stamp

    manifest = Manifest.read(path)
    plan = [replace(shard, state="planned", bytes=None, sha256=None) for shard in manifest.shards]
    replace(manifest, shards=tuple(plan)).write(path)
    for shard in manifest.shards:
        body = {"stamp": stamp(manifest, shard), "bytes": shard.bytes, "sha256": shard.sha256}
        _record_path(path, shard).write_text(json.dumps(body))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"stamp": "0", "bytes": 1, "sha256": "0"}'])
def test_a_record_that_says_nothing_is_not_believed(tmp_path: Path, expected: dict[str, bytes], text: str) -> None:
    fit(tmp_path / "zoo")
    unfinish(tmp_path / "zoo")
    (tmp_path / "zoo" / "shards" / "train-00001.done.json").write_text(text)
    found = ws.Zoo.open(tmp_path / "zoo", allow_incomplete=True)
    assert [shard.file for shard in found.shards if not shard.done] == ["shards/train-00001.safetensors"]
    fit(tmp_path / "zoo")
    assert content(tmp_path / "zoo") == expected


def test_records_of_another_fit_are_not_believed(tmp_path: Path) -> None:
    """A folder's shards that another recipe made: the same names, the same sizes."""
    other = ws.FitConfig(steps=2, lr=5e-3, views=2, seed=3)
    fit(tmp_path / "zoo", config=other)
    unfinish(tmp_path / "zoo")
    (tmp_path / "mine").mkdir()
    fit(tmp_path / "mine")
    unfinish(tmp_path / "mine")
    manifest = tmp_path / "zoo" / "manifest.json"
    manifest.write_bytes((tmp_path / "mine" / "manifest.json").read_bytes())
    found = ws.Zoo.open(tmp_path / "zoo", allow_incomplete=True)
    assert not any(shard.done for shard in found.shards)


def test_two_fits_into_one_folder(tmp_path: Path, expected: dict[str, bytes]) -> None:
    refused = []

    def again(done: int, total: int, psnr: torch.Tensor) -> None:
        if not refused:
            with pytest.raises(ValueError, match=rf"got one that process {os.getpid()} on .* writes to; wait") as error:
                fit(tmp_path / "zoo")
            refused.append(str(error.value))

    fit(tmp_path / "zoo", on_progress=again)
    assert refused
    assert content(tmp_path / "zoo") == expected


def test_another_process_holds_the_folder_until_it_dies(tmp_path: Path) -> None:
    code = "import sys, pathlib, weightspace._lock as lock\nheld = lock.FolderLock(pathlib.Path(sys.argv[1]))\n"
    code += "print('held', flush=True)\nsys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {holder.pid} on .*expected|expected.*process {holder.pid} on"):
            ZooWriter.create(tmp_path, SPEC, plan=[("train", 2, 0)])
        assert [file.name for file in tmp_path.iterdir()] == [LOCK]
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert (tmp_path / LOCK).exists()  # left behind, and in nobody's way
    with ZooWriter.create(tmp_path, SPEC, plan=[("train", 2, 0)]):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_a_closed_writer_writes_nothing(tmp_path: Path) -> None:
    writer = ZooWriter.create(tmp_path, SPEC, plan=[("train", 2, 0)])
    writer.close()
    writer.close()
    networks = ws.Networks(ws.Weights(torch.zeros(2, SPEC.num_params), SPEC), source=[0, 1])
    for call in (lambda: writer.write(0, networks), writer.commit, lambda: writer.target(0)):
        with pytest.raises(ValueError, match="expected an open writer, got one that was closed"):
            call()


@pytest.mark.parametrize("why", ["dead", "alive", "elsewhere", "nobody"])
def test_without_file_locks_the_file_is_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Some network file systems have no locks: then the process named in the file decides."""

    def no_locks(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = _lock.socket.gethostname()
    holders = {
        "dead": {"pid": gone.pid, "host": host},
        "alive": {"pid": os.getppid(), "host": host},
        "elsewhere": {"pid": gone.pid, "host": host + "-other"},
        "nobody": {},
    }
    (tmp_path / LOCK).write_text(json.dumps(holders[why]))
    if why in ("alive", "elsewhere"):
        with pytest.raises(ValueError, match=rf"process \d+ on {holders[why]['host']} since \?.*remove "):
            FolderLock(tmp_path)
    else:
        lock = FolderLock(tmp_path)
        with pytest.raises(ValueError, match=f"process {os.getpid()}"):
            FolderLock(tmp_path)
        lock.release()
        FolderLock(tmp_path).release()
