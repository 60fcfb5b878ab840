"""The command line as an instrument: sizes, strengths and targets in a command, tables, threads, lines of progress."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from _helpers import labelled, run_command

import weightspace as ws
from weightspace.bench import SUITES
from weightspace.cli._options import settings, use_threads

Run = Callable[..., tuple[int, str, str]]
SPEC = ws.siren(2, 4, 4, 1)
SUITE = """
from weightspace import TrainConfig
from weightspace.bench import Entry, Suite

MINE = Suite("mine", {"a": Entry("mlp", {"hidden": 4, "layers": 1})}, ("none", "noise"), TrainConfig(epochs=1))
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *arguments: run_command(capsys, *arguments)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = {name: labelled(SPEC, count, seed=count) for name, count in (("train", 60), ("test", 40))}
    parts = {n: p.replace(columns={"size": p.weights.flat.mean(1), "file": ["x"] * len(p)}) for n, p in parts.items()}
    return ws.zoo.write_zoo(tmp_path_factory.mktemp("instrument") / "zoo", parts).path


def test_options_of_the_model_and_strengths_of_augmentations(run: Run, zoo: Path, tmp_path: Path) -> None:
    sizes = ("--set", "attention=2", "--set", "hidden=4", "--layers", "1")
    augment = ("--augment", "noise=0.2+dropout=0.01")
    code, out, err = run("train", zoo, *sizes, *augment, "--epochs", "1", "--out", tmp_path / "run")
    assert code == 0, err
    body = json.loads((tmp_path / "run" / "result.json").read_text())
    assert body["options"]["attention"] == "2"
    assert body["transform"] == "Compose([GaussianNoise(std=0.2), WeightDropout(p=0.01)])"
    assert f"dwsnet with {body['parameters']:,} parameters" in out
    assert ws.models.load_model(tmp_path / "run").transform == "noise=0.2+dropout=0.01"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--set", "channels=3"), "got 'channels'; did you mean 'hidden'?"),
        (("--set", "hidden"), "expected NAME=VALUE such as channels=64, got 'hidden'"),
        (("--set", "a=1", "--set", "a=2"), "expected each name once, got 'a' twice"),
        (("--augment", "noise=loud"), "expected a number behind noise=, got 'loud'"),
        (("--augment", "permute=3"), "expected permute with no strength, got '3'"),
        (("--augment", "noise=1,2,3"), "expected noise with at most 1 numbers, got '1,2,3'"),
        (("--augment", "noise=-1"), "GaussianNoise"),
        (("--like", "ours/none"), "expected SUITE/ROW with one of ['forward-messages'"),
        (("--like", "nothing/none"), "unknown suite"),
        (("--target", "size", "--objective", "classification"), "expected --objective regression with --target"),
    ],
)
def test_wrong_usage_is_named(run: Run, zoo: Path, arguments: tuple[str, ...], text: str) -> None:
    code, _, err = run("train", zoo, *arguments, "--epochs", "1")
    assert (code, err.count("\n")) == (2, 1), err
    assert text in err


@pytest.mark.parametrize("bad", ["nothing", "file"])
def test_a_target_that_is_no_column_of_numbers(run: Run, zoo: Path, bad: str) -> None:
    code, _, err = run("train", zoo, "--target", bad, "--epochs", "1")
    assert code == 1
    assert "column: expected one of numbers, among ['size'], got" in err


def test_a_column_is_learned_and_scored(run: Run, zoo: Path, tmp_path: Path) -> None:
    model = ("--model", "mlp", "--hidden", "8", "--layers", "1", "--epochs", "3")
    code, _, err = run("train", zoo, *model, "--target", "size", "--out", tmp_path / "run")
    assert code == 0, err
    code, out, err = run("evaluate", tmp_path / "run", zoo)
    assert code == 0, err
    assert "R2 " in out
    opened = ws.Zoo.open(zoo)
    objective = ws.training.Regression.for_zoo(opened, column="size")
    assert objective.std.item() == pytest.approx(opened["train"].columns["size"].std().item())
    assert repr(objective) != repr(ws.training.Regression(std=objective.std.item()))
    bad = opened["test"].replace(columns={"size": [float("nan")] + [0.0] * 39})
    with pytest.raises(ValueError, match=r"column 'size': expected finite numbers, got NaN or infinity in 1 networks"):
        objective.targets(bad)
    with pytest.raises(ValueError, match="expected either values of labels or a column of numbers, got both"):
        ws.training.Regression(torch.tensor([0.0, 1.0]), column="size")


def test_a_row_of_a_suite_gives_model_size_and_budget(run: Run, zoo: Path, tmp_path: Path) -> None:
    entry = SUITES["models"].entries["dwsnet"]
    like = ("--like", "models/dwsnet", "--epochs", "1")
    code, _, err = run("train", zoo, *like, "--out", tmp_path / "run")
    assert code == 0, err
    body = json.loads((tmp_path / "run" / "result.json").read_text())
    expected = ws.models.build(entry.model, SPEC, 3, **entry.options)
    assert body["parameters"] == expected.num_parameters != ws.models.DWSNet(SPEC, 3).num_parameters
    assert (body["config"]["lr"], body["config"]["epochs"]) == (entry.train["lr"], 1)


def test_the_command_of_the_readme_has_the_size_of_its_table() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    line = next(line for line in readme.splitlines() if line.startswith("weightspace train zoo"))
    entry = SUITES["ours"].entries["forward-messages"]
    assert "--like ours/forward-messages" in line
    model = ws.models.build(entry.model, ws.siren(2, 32, 32, 1), 10, **entry.options)
    assert f"| {model.num_parameters:,} |" in (Path(__file__).parents[2] / "docs/results/models.md").read_text()


def test_a_suite_in_a_file_and_its_table(run: Run, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_suite.py").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, out, err = run(
        "bench", tmp_path / "my_own_suite.py", "--zoo", zoo, "--out", tmp_path / "out", "--workers", "1"
    )
    assert code == 0, err
    assert "augmentation" in out.splitlines()[-6]
    (tmp_path / "no_suite_here.py").write_text("A = 1\n")
    (tmp_path / "broken_suite.py").write_text("1 / 0\n")
    for name, text in (
        ("no_suite_here.py", "expected one weightspace.bench.Suite in it, got []; name no_suite_here:NAME"),
        ("broken_suite.py", "expected Python, got ZeroDivisionError"),
        ("absent.py", "expected a file that defines a suite, got none at"),
    ):
        code, _, err = run("bench", tmp_path / name, "--zoo", zoo, "--out", tmp_path / "new")
        assert (code, err.count("\n")) == (2, 1), err
        assert text in err


def test_lines_of_progress_where_there_is_no_terminal(run: Run, zoo: Path) -> None:
    _, out, _ = run("train", zoo, "--model", "mlp", "--hidden", "4", "--layers", "1", "--epochs", "3")
    assert "epoch 1/3  loss " in out
    assert "epoch 3/3  loss " in out
    assert "━" not in out


def test_python_shows_progress_when_asked(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ws.models.MLP(SPEC, 3, hidden=4, layers=1, seed=0)
    ws.train(model, ws.Zoo.open(zoo), epochs=2, batch_size=16)
    assert capsys.readouterr().out == ""
    ws.train(model, ws.Zoo.open(zoo), epochs=2, batch_size=16, progress=True)
    assert "2/2" in capsys.readouterr().out
    seen = []
    coords, targets = ws.signals.images(torch.rand(3, 4, 4).numpy())
    ws.fit(coords, targets, SPEC, steps=2, workers=1, progress=True, on_progress=lambda *step: seen.append(step[:2]))
    assert "3/3" in capsys.readouterr().out
    assert seen[-1] == (3, 3)


def test_threads_follow_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    before, chosen = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    for load, text in (
        (0.2, None),
        (5.9, "2 of 8 threads, as the machine is busy (load 5.9)"),
        (30.0, "1 of 8 threads"),
    ):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        said = use_threads(None, "cpu")
        assert (said is None) if text is None else (said or "").startswith(text)
    assert chosen == [8, 2, 1]
    assert use_threads(3, "cpu") is None
    assert chosen[-1] == 3
    assert use_threads(None, "cuda") is None
    assert len(chosen) == 4
    monkeypatch.undo()
    assert torch.get_num_threads() == before


def test_settings_are_json_or_text() -> None:
    assert settings(["a=1", "b=0.5", "c=true", "d=full", "e=[1, 2]", "f=null"]) == {
        **{"a": 1, "b": 0.5, "c": True, "d": "full"},
        **{"e": [1, 2], "f": None},
    }


def test_shells_complete_commands(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    for name, value in (
        ("_WEIGHTSPACE_COMPLETE", "complete_bash"),
        ("COMP_WORDS", "weightspace ev"),
        ("COMP_CWORD", "1"),
    ):
        monkeypatch.setenv(name, value)
    assert run()[1].split() == ["evaluate"]
