"""Data sets of a user: found by import path and by entry point, built with options of their own, refused when wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _helpers import run_command

from weightspace import datasets
from weightspace.datasets import DATASETS, DataSet
from weightspace.datasets._catalogue import find

MODULE = '''
"""Squares and nothing else."""

from dataclasses import dataclass

import numpy as np

from weightspace.datasets import DataSet
from weightspace.signals import ImageSet


@dataclass(frozen=True)
class Options:
    """Options of the squares.

    Args:
        side: pixels each way.
        bright: whether the squares are white.
    """

    side: int = 4
    bright: bool = False

    def __post_init__(self):
        if self.side < 1:
            raise ValueError(f"side: expected at least 1, got {self.side}")


def build(folder, options, *, on_progress, **facts):
    images = np.full((6, options.side, options.side), 255 if options.bright else 7, np.uint8)
    if on_progress is not None:
        on_progress(6)
    return ImageSet(images, labels=[0, 1, 0, 1, 0, 1], classes=("a", "b"), **facts).with_split(0.5, seed=1), []


FACTS = dict(description="6 squares", classes=2, split="by square", licence="CC0", citation="nobody", obtain="built")
SQUARES = DataSet(name="squares", build=build, options=Options(), **FACTS)
PLAIN = DataSet(name="plain", read=lambda: ImageSet(np.zeros((3, 2, 2), np.uint8), name="plain"), **FACTS)
EMOJI = DataSet(name="emoji", read=lambda: None, **FACTS)
NUMBER = 3
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user in the working directory, which is not on the path, and an empty cache."""
    name = f"own_{tmp_path.name.rstrip('0123456789')[-20:].strip('_')}_{abs(hash(tmp_path)) % 10**8}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEIGHTSPACE_CACHE", str(tmp_path / "cache"))
    return name


def test_a_data_set_is_found_by_import_path(package: str, tmp_path: Path) -> None:
    entry = find(f"{package}:SQUARES")
    assert (entry.name, entry.state) == ("squares", "prepare")
    with pytest.raises(FileNotFoundError, match="squares: expected it in"):
        datasets.load(f"{package}:SQUARES")
    path = datasets.prepare(f"{package}:SQUARES", side=5)
    assert path == tmp_path / "cache" / "squares.npz"
    data = datasets.load(f"{package}:SQUARES")
    assert (data.name, data.licence, data.signals()[1].shape) == ("squares", "CC0", (6, 25, 1))
    assert entry.state == "here"
    with pytest.raises(TypeError, match=r"squares: expected options among \['bright', 'side'\], got 'points'"):
        datasets.prepare(f"{package}:SQUARES", points=3)
    with pytest.raises(ValueError, match="side: expected at least 1, got 0"):
        datasets.prepare(f"{package}:SQUARES", side=0)


def test_a_data_set_without_options_or_splits_is_read(package: str) -> None:
    data = datasets.load(f"{package}:PLAIN")
    assert len(data) == 3
    assert data.splits
    assert find(f"{package}:PLAIN").state == "here"
    with pytest.raises(ValueError, match=":PLAIN: nothing to prepare: built"):
        datasets.prepare(f"{package}:PLAIN")


def test_a_data_set_is_found_by_entry_point(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "installed"
    (installed / "own-1.0.dist-info").mkdir(parents=True)
    (installed / "own-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    points = f"[weightspace.datasets]\nmy-squares = {package}:SQUARES\nbroken = no_such_package:X\n"
    (installed / "own-1.0.dist-info" / "entry_points.txt").write_text(points)
    (installed / f"{package}.py").write_text(MODULE)
    monkeypatch.chdir(installed.parent.parent)
    monkeypatch.syspath_prepend(installed)
    assert find("my-squares").name == "squares"
    assert datasets.prepare("my-squares").is_file()
    assert len(datasets.load("my-squares")) == 6
    with pytest.raises(ValueError, match="the entry point 'broken' cannot be loaded"):
        datasets.load("broken")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("{}:NUMBER", "expected a weightspace.datasets.DataSet, got int"),
        ("{}:NOTHING", "expected an object named 'NOTHING' in the module"),
        ("no_such_package.data:X", "expected a module that can be imported, got 'no_such_package.data'"),
        ("{}:EMOJI", "expected a data set with a name of its own, got 'emoji'"),
        ("{}:", "expected an import path such as my_package.module:Name"),
    ],
)
def test_a_wrong_import_path_is_wrong_usage(
    path: str, text: str, package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = path.format(package)
    with pytest.raises(ValueError, match=text):
        find(path)
    for command in (["data", "list", path], ["data", "prepare", path], ["fit", path, "zoo"]):
        code, _, err = run_command(capsys, *command)
        assert (code, err.count("\n")) == (2, 1), err
        assert text in err
    assert not (tmp_path / "zoo").exists()
    assert not (tmp_path / "cache").exists()


def test_the_commands_derive_their_flags(package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{package}:SQUARES"
    code, out, _ = run_command(capsys, "data", "prepare", name, "--help")
    assert code == 0
    assert "--side" in out
    assert "pixels each way." in out
    assert "--bright" in out
    assert "--points" not in out
    code, out, err = run_command(capsys, "data", "prepare", name, "--side", "3", "--bright")
    assert (code, err) == (0, "")
    assert "ImageSet('squares', 6 images 3x3 uint8" in out
    code, out, _ = run_command(capsys, "data", "list", name)
    assert code == 0
    assert "option      side (4): pixels each way." in out
    code, _, err = run_command(capsys, "data", "prepare", name, "--side", "0")
    assert (code, "side: expected at least 1, got 0" in err) == (2, True)
    code, _, err = run_command(capsys, "data", "prepare", name, "--size", "0")
    assert (code, f"{name}: expected no --size: see weightspace data list {name}" in err) == (2, True)


def test_a_path_on_the_disk_comes_first(package: str, tmp_path: Path) -> None:
    """A colon is a legal character of a file name."""
    np.savez(tmp_path / "a:b.npz", images=np.zeros((3, 2, 2), np.uint8))
    assert len(datasets.load("a:b.npz")) == 3


def test_a_data_set_is_either_read_or_built() -> None:
    facts = {name: getattr(DATASETS["digits"], name) for name in ("description", "classes", "split", "licence")}
    with pytest.raises(ValueError, match="mine: expected either read or build, got neither"):
        DataSet(name="mine", citation="", obtain="", **facts)
    with pytest.raises(ValueError, match="mine: expected either read or build, got both"):
        DataSet(name="mine", citation="", obtain="", read="a:b", build="a:b", **facts)
