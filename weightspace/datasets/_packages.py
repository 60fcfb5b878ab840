"""Packages of npm and Debian: fetching them by their own clients, and reading the files in them."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def debian_package(name: str, folder: Path) -> Path:
    """Find the ``.deb`` of a Debian package in ``folder``, or fetch it by apt-get, which needs no root here.

    Raises:
        FileNotFoundError: if apt-get is needed and missing.
        OSError: if it fails.
    """
    if found := sorted(folder.glob(f"{name}_*.deb")):
        return found[-1]
    folder.mkdir(parents=True, exist_ok=True)
    put = f"put {name}_*.deb into a folder and name it with --source"
    _run(["apt-get", "download", name], folder, f"a Debian or Ubuntu system to fetch the package {name}; else {put}")
    if found := sorted(folder.glob(f"{name}_*.deb")):
        return found[-1]
    raise OSError(f"apt-get download {name}: expected {name}_*.deb in {folder}, got none; {put}")


def npm_package(name: str, version: str, folder: Path) -> Path:
    """Find the ``.tgz`` of an npm package in ``folder``, or fetch it by ``npm pack``.

    Raises:
        FileNotFoundError: if npm is needed and missing.
        OSError: if it fails.
    """
    path = folder / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    put = f"put {path.name} into a folder and name it with --source"
    _run(["npm", "pack", "--silent", f"{name}@{version}"], folder, f"Node's npm to fetch {name}; install it, or {put}")
    if not path.is_file():
        raise OSError(f"npm pack {name}@{version}: expected {path.name} in {folder}, got none; {put}")
    return path


def _run(command: list[str], folder: Path, remedy: str) -> None:
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"expected the program {command[0]}, got none on this machine: it takes {remedy}")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        said = lines[-1].strip() if lines else "nothing"
        raise OSError(f"{' '.join(command)}: failed with exit code {done.returncode}: {said}; it takes {remedy}")


@contextmanager
def debian_files(path: Path, suffix: str, *, content: bool = True) -> Iterator[Iterator[tuple[str, bytes]]]:
    """Open a ``.deb`` and iterate over its files with the suffix: name below ``/`` and content, all in memory.

    Raises:
        FileNotFoundError: if dpkg-deb is missing.
        OSError: if the package is damaged.
    """
    if shutil.which("dpkg-deb") is None:
        raise FileNotFoundError(f"expected the program dpkg-deb to open {path.name}, got none; install Debian's dpkg")
    process = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                yield _members(tar, suffix, content)
        except tarfile.TarError as error:
            said = process.stderr.read().decode(errors="replace").strip() or str(error)
            raise OSError(
                f"{path}: expected a good Debian package, got: {said}; delete it to fetch it again"
            ) from error
    finally:
        process.stdout.close()
        process.stderr.close()
        process.kill()
        process.wait()


def debian_names(path: Path, suffix: str) -> list[str]:
    """List the names of a ``.deb``'s files with the suffix, as :func:`debian_files` spells them."""
    with debian_files(path, suffix, content=False) as files:
        return [name for name, _ in files]


def _members(tar: tarfile.TarFile, suffix: str, content: bool) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        if member.isfile() and member.name.endswith(suffix):
            file = tar.extractfile(member) if content else None
            yield member.name.lstrip("./"), file.read() if file is not None else b""


def npm_file(path: Path, name: str) -> bytes | None:
    """Read one file of an npm package; return None if it has none of that name.

    Raises:
        OSError: if the package is damaged.
    """
    try:
        with tarfile.open(path, mode="r:gz") as tar:
            member = f"package/{name}"
            if member not in tar.getnames() or (file := tar.extractfile(member)) is None:
                return None
            return file.read()
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise OSError(f"{path}: expected a good npm package, got: {error}; delete it to fetch it again") from error
