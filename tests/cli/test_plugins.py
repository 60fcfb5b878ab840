"""Import paths on the command line: a model, an augmentation and a suite of a user, and every way to get one wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from weightspace import cli

MODULE = '''
"""Things of a user."""

import weightspace as ws
from weightspace.bench import Entry, Suite


class MyModel(ws.models.MLP):
    """A model of a user."""


class Weak:
    """Not a model."""


class MyNoise(ws.transforms.GaussianNoise):
    """An augmentation with a default."""

    def __init__(self, strength=0.3):
        super().__init__(strength)


class MyObjective(ws.training.Classification):
    """Classification under a name of the user's."""


SUITE = Suite("mine", {"mlp": Entry("mlp", {"hidden": 4, "layers": 1})}, ("none",), ws.TrainConfig(epochs=1))
NUMBER = 3
'''
TINY = ("--hidden", "4", "--layers", "1", "--epochs", "1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of a user and a zoo."""
    monkeypatch.chdir(tmp_path)
    for name in ("my_things", "broken_things"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "my_things.py").write_text(MODULE)
    (tmp_path / "broken_things.py").write_text("1 / 0")
    images = np.random.default_rng(0).random((40, 4, 4), dtype=np.float32)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(40) % 2)
    assert run("fit", "data.npz", "zoo", "--widths", "4", "--steps", "3", "--workers", "1") == 0
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_model_and_an_augmentation_of_a_user(here: Path) -> None:
    before = list(sys.path)
    augment = "sign+my_things:MyNoise"
    assert run("train", "zoo", "--model", "my_things:MyModel", "--augment", augment, *TINY, "--out", "run") == 0
    result = json.loads((here / "run" / "result.json").read_text())
    assert "MyNoise" in result["transform"]
    assert sys.path == before


def test_an_objective_of_a_user(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "zoo", "--model", "mlp", "--objective", "my_things:MyObjective", *TINY, "--out", "run") == 0
    assert "MyObjective" in (here / "run" / "run.json").read_text()
    assert "validation" in (out := capsys.readouterr().out)
    assert "%" in out.splitlines()[-1]


def test_real_valued_labels_are_learned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import weightspace as ws

    networks = ws.Zoo.open(here / "zoo")["train"]
    named = networks.replace(label=networks.weights.flat.mean(1))
    ws.zoo.write_zoo(here / "numbers", train=named)
    assert run("train", "numbers", "--model", "mlp", "--objective", "regression", *TINY) == 0
    assert "%" not in capsys.readouterr().out.splitlines()[-1], "an error is no accuracy"
    assert run("train", "numbers", "--model", "mlp", *TINY) == 1
    assert "real-valued labels" in capsys.readouterr().err


def test_a_suite_of_a_user(here: Path) -> None:
    assert run("bench", "my_things:SUITE", "--zoo", "zoo", "--out", "grid", "--workers", "1") == 0
    assert json.loads((here / "grid" / "result.json").read_text())["suite"] == "mine"


def test_the_working_directory_is_searched_last(here: Path) -> None:
    """A file beside the data does not hide a module of an installed package."""
    (here / "json.py").write_text("raise RuntimeError('hidden')")
    (here / "colorsys.py").write_text("raise RuntimeError('hidden')")
    assert run("train", "zoo", "--model", "colorsys:rgb_to_yiq", *TINY) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("train", "zoo", "--model", "my_things:Weak"), "expected a subclass of weightspace.models"),
        (("train", "zoo", "--model", "my_things:NUMBER"), "expected a class, got int"),
        (("train", "zoo", "--model", "my_things:Nothing"), "expected an object named 'Nothing'"),
        (
            ("train", "zoo", "--model", "no_such_module:X"),
            "expected a module that can be imported, got 'no_such_module'",
        ),
        (
            ("train", "zoo", "--model", "broken_things:X"),
            "the module 'broken_things' raised on import: ZeroDivisionError",
        ),
        (("train", "zoo", "--model", "no-such-model"), "unknown model: expected one of"),
        (("train", "zoo", "--model", "my_things:"), "expected an import path such as"),
        (("train", "zoo", "--objective", "my_things:Weak"), "expected a subclass of weightspace.training"),
        (("train", "zoo", "--objective", "odd"), "unknown objective: expected one of"),
        (("train", "zoo", "--augment", "my_things:NUMBER"), "my_things:NUMBER"),
        (("train", "zoo", "--augment", "sign+no_such_module:X"), "no_such_module"),
        (("train", "zoo", "--augment", "my_things:Weak"), "my_things:Weak"),
        (("train", "zoo", "--augment", "odd"), "unknown augmentation"),
        (("bench", "my_things:NUMBER", "--zoo", "zoo", "--out", "new"), "expected a weightspace.bench.Suite, got int"),
        (("bench", "my_things:Nothing", "--zoo", "zoo", "--out", "new"), "expected an object named 'Nothing'"),
        (("fit", "my_things:NUMBER", "new"), "expected a weightspace.datasets.DataSet, got int"),
    ],
)
def test_a_wrong_name_is_wrong_usage(
    arguments: tuple[str, ...], text: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert text in err
    assert (err.count("\n"), out) == (1, "")
    assert not (here / "new").exists()


def test_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, name in {
        "models": "dwsnet",
        "augmentations": "mixup",
        "objectives": "regression",
        "suites": "demo",
        "recipes": "dws",
        "datasets": "emoji",
    }.items():
        capsys.readouterr()
        assert run("list", kind) == 0
        names = capsys.readouterr().out.splitlines()
        assert name in names
        assert names == sorted(names)
    assert run("list", "things") == 2
