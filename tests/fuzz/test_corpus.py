"""The corpus that fuzzing starts from and its findings: a value or a clear error, in time and within bounds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz import _targets


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    for path in _targets._HELD:
        shutil.rmtree(path)
    _targets._HELD.clear()
    _targets.folder.cache_clear()
    _targets.zoo.cache_clear()


CASES = [(name, path.name) for name in _targets.TARGETS for path in _targets.corpus(name)]


@pytest.mark.parametrize(("name", "file"), CASES)
def test_files_of_the_corpus(name: str, file: str) -> None:
    if name in ("obj", "ply", "stl"):
        pytest.importorskip("trimesh")
    data = (_targets.CORPUS / name / file).read_bytes()
    _targets.tried(name, data)
    if file.startswith("good-"):
        _targets.TARGETS[name](data)  # and these are values


@pytest.mark.parametrize("name", _targets.TARGETS)
def test_files_that_are_cut_or_changed(name: str) -> None:
    if name in ("obj", "ply", "stl"):
        pytest.importorskip("trimesh")
    for path in _targets.corpus(name):
        if path.name.startswith("good-"):
            data = path.read_bytes()
            for place in range(0, len(data), max(1, len(data) // 16)):
                _targets.tried(name, data[:place])
                _targets.tried(name, data[:place] + bytes([data[place] ^ 0x21]) + data[place + 1 :])


def test_every_reader_has_a_corpus_and_a_finding_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {path.name for path in _targets.CORPUS.iterdir()} == {*_targets.TARGETS}
    assert all(any(path.name.startswith("good-") for path in _targets.corpus(name)) for name in _targets.TARGETS)

    def broken(data: bytes) -> None:
        raise KeyError(data)

    monkeypatch.setitem(_targets.TARGETS, "broken", broken)
    with pytest.raises(KeyError):
        _targets.tried("broken", b"")
    monkeypatch.setattr(_targets, "SECONDS", -1.0)
    with pytest.raises(RuntimeError, match="expected an answer within"):
        _targets.tried("spec", b"{}")


def test_the_corpus_is_small() -> None:
    size = sum(path.stat().st_size for path in Path(_targets.CORPUS).rglob("*") if path.is_file())
    assert size < 300_000
