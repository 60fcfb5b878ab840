"""The command line: every command, one line an error, exit codes, interrupts, a full disk."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers import run_command
from PIL import Image

import weightspace as ws
from weightspace import cli
from weightspace.bench import SUITES, Entry, Suite
from weightspace.cli._options import argument_help
from weightspace.fitting import RECIPES, FitConfig
from weightspace.training import TrainConfig
from weightspace.zoo import Zoo

COMMANDS = (
    "demo",
    "fit",
    "train",
    "predict",
    "evaluate",
    "embed",
    "neighbours",
    "bench",
    "report",
    "inspect",
    "verify",
    "import",
    "export",
    "align",
    "add-views",
    "benchmark",
    "stats",
    "merge",
    "copy",
    "sample",
    "split",
    "data",
    "list",
)
RECIPE = ("--widths", "4", "--steps", "3", "--lr", "0.01", "--workers", "1")
TINY = Suite("tiny", {"mlp": Entry("mlp", {"hidden": 8, "layers": 1})}, ("none",), TrainConfig(epochs=2, batch_size=16))

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process: exit code, what it wrote to stdout, and to stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        return run_command(capsys, *arguments)

    return call


def npz(path: Path, count: int, *, side: int = 4, labels: bool = True, nan: bool = False) -> Path:
    rng = np.random.default_rng(0)
    images = rng.random((count, side, side), dtype=np.float32)
    if nan:
        images[2, 1, 1] = np.nan
    np.savez(path, images=images, **({"labels": np.arange(count) % 3} if labels else {}))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders of PNG."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 6)):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 128, (6, 6)) + (127 if name == "dog" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def zoo(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zoo") / "zoo"
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", str(pictures), str(path), *RECIPE])
    assert ended.value.code == 0
    return path


def assert_error(result: tuple[int, str, str], code: int, *texts: str) -> None:
    """One line on stderr that says what was expected."""
    assert result[0] == code, result
    assert result[2].startswith("weightspace: ")
    assert result[2].count("\n") == 1, result[2]
    assert "Traceback" not in result[1] + result[2]
    for text in texts:
        assert text in result[2]


def start(*arguments: str | Path, setup: str = "") -> subprocess.Popen[str]:
    """The same in a process of its own, where Ctrl-C and limits are real."""
    hears = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # background jobs start deaf to it
    )
    code = f"{hears}\n{setup}\nimport sys\nfrom weightspace.cli import main\nmain(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(ws.__file__).parents[1]), "COLUMNS": "100"},
    )


# --- help and options


def test_module_tells_its_version() -> None:
    command = [sys.executable, "-W", "error", "-m", "weightspace", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(ws.__file__).parents[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ws.__version__}\n", "")


def test_without_a_command_comes_help(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: weightspace {command}" in out


@pytest.mark.parametrize(("command", "config"), [("fit", FitConfig), ("train", TrainConfig)])
def test_options_derive_from_the_dataclass(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, config: type
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    _, out, _ = run(command, "--help")
    words = " ".join(out.split())
    for field in fields(config):
        assert f"--{field.name.replace('_', '-')} " in words
        assert argument_help(config)[field.name] in words


def test_options_reach_the_configuration(run: Run, pictures: Path, tmp_path: Path) -> None:
    options = ("--views", "2", "--seed", "5", "--init", "siren", "--shared-init", "--target-psnr", "40")
    assert run("fit", pictures, tmp_path / "zoo", *RECIPE, *options, "--omega", "10", "--train", "4")[0] == 0
    opened = Zoo.open(tmp_path / "zoo")
    given = {"steps": 3, "lr": 0.01, "views": 2, "seed": 5, "init": "siren", "shared_init": True, "target_psnr": 40.0}
    assert {**opened.recipe, **given} == opened.recipe
    assert opened.spec == ws.siren(2, 4, 1, omega=10.0, init="siren")
    assert (opened.splits, opened.count("train"), opened.init_regime) == (("train",), 8, "shared")


# --- the commands


def test_fit_tells_what_it_made(run: Run, pictures: Path, tmp_path: Path) -> None:
    code, out, err = run("fit", pictures, tmp_path / "zoo", *RECIPE)
    assert (code, err) == (0, "")
    assert "60/60" in out
    assert "networks/s  PSNR" in out
    assert "independent inits" in out
    opened = Zoo.open(tmp_path / "zoo")
    assert (opened.count("train"), opened.count("test"), opened.classes) == (48, 12, ("cat", "dog"))
    assert opened.spec == ws.siren(2, 4, 1)


def test_fit_counts_and_activation(run: Run, tmp_path: Path) -> None:
    data = npz(tmp_path / "a.npz", 40)
    counts = ("--train", "10", "--val", "5", "--test", "3")
    assert run("fit", data, tmp_path / "zoo", *RECIPE, "--activation", "relu", *counts)[0] == 0
    opened = Zoo.open(tmp_path / "zoo")
    assert {name: opened.count(name) for name in opened.splits} == {"train": 10, "val": 5, "test": 3}
    assert opened.spec == ws.mlp(2, 4, 1, activation="relu")


def test_fit_resizes_pictures(run: Run, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    Image.new("L", (9, 9)).save(tmp_path / "data" / "train" / "cat" / "odd.png")
    assert_error(run("fit", tmp_path / "data", tmp_path / "zoo", *RECIPE), 1, "expected an image of 6x6", "got 9x9")
    assert run("fit", tmp_path / "data", tmp_path / "zoo", *RECIPE, "--size", "4")[0] == 0
    assert Zoo.open(tmp_path / "zoo").count("train") == 49


def test_inspect_shows_spec_counts_and_quality(run: Run, zoo: Path) -> None:
    code, out, err = run("inspect", zoo)
    assert (code, err) == (0, "")
    assert "siren(2-4-1, omega=30)" in out
    assert "steps 3" in out
    assert "2 of 2 shards" in out
    line = next(line for line in out.splitlines() if "train" in line)
    assert "48" in line
    assert f"{Zoo.open(zoo).psnr('train').mean():.2f}" in line
    assert "█" in line


def test_inspect_draws_a_picture(run: Run, zoo: Path, tmp_path: Path) -> None:
    code, out, err = run("inspect", zoo, "--picture", tmp_path / "some [b]folder" / "grid.png")
    assert (code, err) == (0, "")
    assert f"wrote {tmp_path}/some [b]folder/grid.png" in out, "brackets in a path are no markup"
    with Image.open(tmp_path / "some [b]folder" / "grid.png") as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image))) > 10


def test_verify_says_good(run: Run, zoo: Path) -> None:
    assert run("verify", zoo) == (0, f"{zoo}: good\n", "")


def test_train_writes_a_run_and_goes_on(run: Run, zoo: Path, tmp_path: Path) -> None:
    command = ("train", zoo, "--epochs", "2", "--model", "mlp", "--hidden", "8", "--layers", "1", "--batch-size", "16")
    code, out, err = run(*command, "--augment", "sign+noise", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["config"]["epochs"] == 2
    assert written["transform"].startswith("Compose([SignFlip")
    assert f"best epoch {written['best_epoch']}: validation {100 * written['val']:.2f} %" in out
    assert f"test {100 * written['test']:.2f} %" in out
    code, again, _ = run(*command, "--augment", "sign+noise", "--out", tmp_path / "run")
    assert code == 0
    assert again.splitlines()[-1] == out.splitlines()[-1]
    other = run(*command, "--augment", "noise", "--out", tmp_path / "run")
    assert_error(other, 1, "holds another run: expected transform GaussianNoise", "use another folder")


def test_train_repeats_for_a_seed_and_leaves_the_global_generator(run: Run, zoo: Path) -> None:
    command = ("train", zoo, "--epochs", "1", "--model", "dwsnet", "--hidden", "4", "--layers", "1")
    before = torch.get_rng_state()
    first, second = run(*command), run(*command)
    assert first[0] == 0
    assert first[1].splitlines()[-1] == second[1].splitlines()[-1]
    assert torch.equal(before, torch.get_rng_state())


def test_bench_then_report(run: Run, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "tiny", TINY)
    command = ("bench", "tiny", "--zoo", zoo, "--out", tmp_path / "grid", "--workers", "1")
    line = {"epoch": 1, "loss": 1.0, "lr": 0.1, "train": 0.5, "val": 0.5, "seconds": 2.0}
    cell = {
        "environment": {"commit": None, "device": "cpu"},
        "parameters": 7,
        "track": "weights-only",
        "equivariance": "none",
        "forward_flop": 9,
        "transform": "None",
        "objective": None,
        "best_epoch": 1,
        "val": 0.5,
        "test": 0.25,
        "seconds": 2.0,
    }
    (tmp_path / "grid" / "cells" / "mlp-none-0").mkdir(parents=True)  # as an earlier run left it
    (tmp_path / "grid" / "cells" / "mlp-none-0" / "cell.json").write_text(json.dumps({**cell, "history": [line]}))
    code, out, err = run(*command, "--epochs", "1")
    assert (code, err) == (0, "")
    assert "1/1  mlp none seed 0" in out
    assert "val 50.00 %  test 25.00 %  2 s\n" in out
    result = json.loads((tmp_path / "grid" / "result.json").read_text())
    assert (result["train"]["epochs"], result["rows"][0]["test_mean"]) == (1, 0.25)
    assert_error(run(*command), 1, "holds results of another budget", "use another folder or remove it")
    code, out, err = run("report", tmp_path / "grid" / "result.json", "--out", tmp_path / "page.html")
    assert (code, out, err) == (0, f"open {tmp_path / 'page.html'}\n", "")
    assert "<html" in (tmp_path / "page.html").read_text()


def test_demo_does_all_three_steps(run: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ws.datasets.load(pictures)
    monkeypatch.setattr(ws.datasets, "embedded", lambda: data)
    monkeypatch.setitem(RECIPES, "dws", FitConfig(steps=2, lr=1e-2))
    monkeypatch.setitem(SUITES, "demo", TINY)
    code, out, err = run("demo", "--out", tmp_path / "demo", "--workers", "1")
    assert (code, err) == (0, "")
    assert [line[:3] for line in out.splitlines() if line[1:3] == "/3"] == ["1/3", "2/3", "3/3"]
    assert out.splitlines()[-1] == f"open {tmp_path / 'demo' / 'report.html'}"
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"zoo", "bench", "report.html"}
    result = json.loads((tmp_path / "demo" / "bench" / "result.json").read_text())
    with gzip.open(tmp_path / "demo" / "bench" / "history.jsonl.gz", "rt") as file:
        assert [json.loads(line)["epoch"] for line in file] == list(range(1, TINY.train.epochs + 1))
    assert len(result["rows"]) == 1
    assert ws.zoo.verify(Zoo.open(tmp_path / "demo" / "zoo")) == []


def test_export_and_import_are_inverse(run: Run, zoo: Path, tmp_path: Path) -> None:
    assert run("export", zoo, tmp_path / "dicts") == (0, f"wrote {tmp_path / 'dicts'}\n", "")
    code, out, err = run("import", tmp_path / "dicts", tmp_path / "back", "--init-regime", "independent")
    assert (code, err) == (0, "")
    assert "independent inits" in out
    first, second = Zoo.open(zoo), Zoo.open(tmp_path / "back")
    assert second.spec == first.spec
    for split in first.splits:
        assert torch.equal(first.weights(split).flat, second.weights(split).flat)
        for column in ("labels", "sources", "views", "psnr"):
            assert torch.equal(getattr(first, column)(split), getattr(second, column)(split))
    code, _, _ = run("import", tmp_path / "dicts", tmp_path / "slow", "--widths", "2,4,1", "--omega", "5")
    assert code == 0
    assert Zoo.open(tmp_path / "slow").spec == ws.siren(2, 4, 1, omega=5.0)


def dicts(folder: Path, *names: str, labelled: bool = True) -> Path:
    """Write a folder of state dicts of a ReLU network, with a split file."""
    folder.mkdir()
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        torch.manual_seed(seed)
        module = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        torch.save({**module.state_dict(), **({"label": seed} if labelled else {})}, folder / name)
    (folder / "splits.json").write_text(json.dumps({"train": list(names)}))
    return folder


def test_import_of_networks_that_a_few_flags_describe(run: Run, tmp_path: Path) -> None:
    folder = dicts(tmp_path / "dicts", "seed0/dog.pth", "seed1/dog.pth", "seed0/cat.pth")
    flags = ("--activation", "relu", "--output-shift", "0", "--source-pattern", r"(\w+)\.pth", "--label-from", "file")
    code, out, err = run("import", folder, tmp_path / "zoo", *flags)
    assert (code, err) == (0, "")
    assert "imported, keys matched in the order of" in out
    assert "assumed" not in out
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.spec == ws.mlp(2, 4, 1)
    assert (zoo.sources("train").tolist(), zoo.views("train").tolist()) == ([0, 0, 1], [0, 1, 0])
    assert zoo.labels("train").tolist() == [0, 1, 2]


def test_what_an_import_assumed_is_shown(run: Run, tmp_path: Path) -> None:
    folder = dicts(tmp_path / "dicts", "dog_v0.pth", "dog_v1.pth", "cat_v0.pth", labelled=False)
    with pytest.warns(UserWarning, match="is assumed|look like") as warned:
        assert run("import", folder, tmp_path / "zoo")[0] == 0
    texts = [str(one.message) for one in warned]
    assert any("so activation sine, omega 30.0, output_shift 0.5 is assumed" in text for text in texts), texts
    assert any("'dog_v0.pth' and 'dog_v1.pth' look like fits of one" in text for text in texts), texts
    _, out, _ = run("inspect", tmp_path / "zoo")
    assert "assumed activation sine, omega 30.0, output_shift 0.5" in out
    assert "sources one a file: splits may share signals" in out


HOSTILE = "x\x1b]0;pwned\x07\x1b[2J\u202e\r"


def test_names_of_files_are_escaped_where_they_are_printed(run: Run, tmp_path: Path) -> None:
    networks = ws.Networks(ws.Weights(torch.rand(4, 17), ws.siren(2, 4, 1)), label=[0, 1, 0, 1])
    facts = {
        "data": HOSTILE,
        "assumed": {HOSTILE: HOSTILE},
        "state_dicts": {"keys": {HOSTILE: HOSTILE + "2"}, "matched": HOSTILE, "sources": HOSTILE},
    }
    path = tmp_path / "zoo"
    ws.zoo.write_zoo(path, {"train": networks}, provenance=facts, recipe={HOSTILE: HOSTILE}, classes=[HOSTILE, "b"])
    for arguments in (("inspect", path), ("stats", path), ("verify", path), ("split", path, tmp_path / "s")):
        more = ("--train", "1") if arguments[0] == "split" else ()
        code, out, err = run(*arguments, *more)
        assert code == 0, err
        assert not set(out + err) & set("\x1b\x07\u202e\r")
    assert r"\x1b]0;pwned\x07\x1b[2J\u202e\r" in run("inspect", path)[1]
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "manifest.json").write_text(json.dumps({"format": "weightspace-zoo", "version": HOSTILE}))
    assert "\x1b" not in run("inspect", tmp_path / "odd")[2]
    assert "\x1b" not in run("inspect", tmp_path / HOSTILE)[2]


def test_warnings_of_the_program_are_one_line_each(tmp_path: Path) -> None:
    folder = dicts(tmp_path / "dicts", "a.pth")
    command = [sys.executable, "-m", "weightspace", "import", str(folder), str(tmp_path / "zoo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [["weightspace", "UserWarning"]]


# --- errors


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("fit", "digits", "zoo", "--bogus"), "No such option: --bogus"),
        (("fit", "digits"), "Missing argument"),
        (("fit", "digits", "zoo", "--widths", "a,b"), "expected positive widths such as 32,32, got 'a,b'"),
        (("fit", "digits", "zoo", "--widths", ""), "expected positive widths"),
        (("fit", "digits", "zoo", "--widths", "8,0"), "expected positive widths"),
        (("fit", "digits", "zoo", "--steps", "many"), "'--steps'"),
        (("fit", "digits", "zoo", "--steps", "0"), "steps: expected at least 1, got 0"),
        (("fit", "digits", "zoo", "--init", "odd"), "unknown init: expected one of"),
        (("fit", "digits", "zoo", "--workers", "0"), "'--workers'"),
        (("fit", "digits", "zoo", "--device", "abacus"), "expected 'auto', 'cpu' or a CUDA device that is there"),
        (("train", "zoo", "--lr", "nan"), "lr: expected a positive number"),
        (("import", "a", "b", "--omega", "3", "--activation", "relu"), "expected no --omega with --activation relu"),
        (("import", "a", "b", "--activation", "odd"), "unknown activation: expected one of"),
        (("import", "a", "b", "--label-from", "odd"), "'--label-from'"),
        (("fit", "embedded", "new", "--activation", "odd"), "unknown activation: expected one of"),
        (("fit", "embedded", "new", "--activation", "relu", "--omega", "3"), "expected a positive --omega, with sines"),
        (("fit", "embedded", "new", "--omega", "-1"), "expected a positive --omega"),
        (("fit", "embedded", "new", "--val", "3"), "expected --train with --val"),
        (("bench", "odd", "--zoo", "z", "--out", "new"), "unknown suite: expected one of"),
        (("import", "a", "b", "--init-regime", "odd"), "'--init-regime'"),
        (("dance",), "No such command 'dance'"),
        (("--bogus",), "No such option: --bogus"),
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert_error(run(*arguments), 2, text, "see --help")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("fit", "nowhere", "new"), "nowhere: expected one of embedded, fashion-mnist, digits, mnist, cifar-10, "),
        (("fit", "nan.npz", "new"), "images: expected finite pixels, got NaN or infinity in image 2"),
        (("fit", "good.npz", "new", "--train", "900"), "counts: 'train' expected 1 to"),
        (("inspect", "nowhere"), "nowhere: expected a zoo, a folder with a manifest.json"),
        (("verify", "nowhere"), "expected a zoo"),
        (("train", "nowhere"), "expected a zoo"),
        (("bench", "demo", "--zoo", "nowhere", "--out", "new"), "expected a zoo"),
        (("export", "nowhere", "new"), "expected a zoo"),
        (("import", "nowhere", "new"), "expected a splits.json"),
        (("report", "nowhere.json"), "nowhere.json"),
        (("train", "{zoo}", "--augment", "positive-scale"), "expected activations that commute with positive factors"),
        (("export", "{zoo}", "{zoo}"), "expected a new or empty folder"),
    ],
)
def test_failure(
    run: Run, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    npz(tmp_path / "nan.npz", 5, nan=True)
    npz(tmp_path / "good.npz", 40)
    before = sorted(zoo.rglob("*"))
    assert_error(run(*(argument.format(zoo=zoo) for argument in arguments)), 1, text)
    assert not (tmp_path / "new").exists()
    assert sorted(zoo.rglob("*")) == before


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--debug", "inspect", str(tmp_path)], ["inspect", str(tmp_path), "--debug"]):
        with pytest.raises(ValueError, match="expected a zoo"):  # the interpreter prints it
            cli.main(arguments)
    assert capsys.readouterr().err == ""


def test_unlabelled_zoo_is_refused_by_train(run: Run, tmp_path: Path) -> None:
    assert run("fit", npz(tmp_path / "a.npz", 20, labels=False), tmp_path / "zoo", *RECIPE)[0] == 0
    result = run("train", tmp_path / "zoo", "--out", tmp_path / "run")
    assert_error(result, 1, "expected a zoo with labels, got 20 of 20 networks without")
    assert not (tmp_path / "run").exists()


def test_fit_with_another_recipe_is_refused(run: Run, zoo: Path, pictures: Path) -> None:
    before = (zoo / "manifest.json").read_bytes()
    assert_error(run("fit", pictures, zoo, *RECIPE, "--seed", "1"), 1, "was begun otherwise", "seed")
    assert (zoo / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("command", ["verify", "inspect", "train", "export"])
def test_truncated_shard(run: Run, zoo: Path, tmp_path: Path, command: str) -> None:
    shutil.copytree(zoo, tmp_path / "zoo")
    shard = next((tmp_path / "zoo" / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-7])
    result = run(command, tmp_path / "zoo", *([tmp_path / "new"] if command == "export" else []))
    assert_error(result, 1, f"{shard.name} is truncated or altered: expected")
    assert not (tmp_path / "new").exists()


def test_altered_shard(run: Run, zoo: Path, tmp_path: Path) -> None:
    shutil.copytree(zoo, tmp_path / "zoo")
    shard = next((tmp_path / "zoo" / "shards").iterdir())
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    result = run("verify", tmp_path / "zoo")
    assert_error(result, 1, "1 problem(s)")
    assert f"{shard.name} is altered: expected sha256" in result[1]
    assert_error(run("train", tmp_path / "zoo"), 1, "is altered: expected sha256")


class Evil:
    """Would make a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_pth_that_holds_code_is_refused_not_run(run: Run, tmp_path: Path) -> None:
    folder, mark = tmp_path / "dicts", tmp_path / "ran"
    folder.mkdir()
    torch.save({"0.weight": torch.zeros(4, 2), "evil": Evil(mark)}, folder / "a.pth")
    (folder / "splits.json").write_text(json.dumps({"train": {"path": ["a.pth"], "label": [0]}}))
    assert_error(run("import", folder, tmp_path / "zoo"), 1, "a.pth")
    assert not mark.exists()
    assert not (tmp_path / "zoo").exists()
    pickle.loads(pickle.dumps(Evil(mark)))  # the trap works
    assert mark.exists()


# --- interrupts and a full disk


INTERRUPTS_ITSELF = """
import os, signal
replace, names = os.replace, []
def counted(source, target):
    replace(source, target)
    names.append(str(target))
    if sum(name.endswith(".done.json") for name in names) == 2:
        os.kill(os.getpid(), signal.SIGINT)
os.replace = counted
"""
"""A process that is interrupted just after its second shard, however busy the machine is."""


def test_interrupted_fit_goes_on(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "zoo"
    command = ("fit", npz(tmp_path / "a.npz", 1900, side=8), path, *RECIPE)
    process = start(*command, setup=INTERRUPTS_ITSELF)
    _, err = process.communicate()
    assert_error((process.returncode, "", err), 130, "interrupted; the same command goes on")
    done = {file: file.stat().st_mtime_ns for file in path.glob("shards/*.safetensors")}
    code, out, _ = run("inspect", path)
    assert code == 0
    total = len(json.loads((path / "manifest.json").read_text())["shards"])
    assert len(done) == 2 < total
    assert f"{len(done)} of {total} shards" in out
    assert_error(run("verify", path), 1)
    assert run(*command)[0] == 0
    assert {file: file.stat().st_mtime_ns for file in done} == done, "what was done is not fitted again"
    assert run("verify", path)[0] == 0
    assert not list(path.rglob("*tmp*"))


def test_interrupt_of_any_command_is_one_line(run: Run, zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ws.Zoo, "open", interrupt)
    assert_error(run("verify", zoo), 130, "interrupted")


def test_full_disk_leaves_nothing_half_written(run: Run, tmp_path: Path) -> None:
    """No file may grow above 20 kB: the manifest fits, a shard does not."""
    pytest.importorskip("resource")
    path = tmp_path / "zoo"
    command = ("fit", npz(tmp_path / "a.npz", 300), path, *RECIPE)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    process = start(*command, setup=limit)
    _, err = process.communicate()
    assert_error((process.returncode, "", err), 1, "could not write", "train-00000.safetensors", "free some space")
    assert {file.name for file in path.rglob("*") if file.is_file()} == {"manifest.json"}
    assert json.loads((path / "manifest.json").read_text())["shards"][0]["state"] == "planned"
    assert run(*command)[0] == 0
    assert run("verify", path)[0] == 0


# --- zoos out of zoos


def test_zoos_out_of_zoos(run: Run, zoo: Path, pictures: Path, tmp_path: Path) -> None:
    whole = Zoo.open(zoo)
    count = {split: whole.count(split) for split in whole.splits}
    code, out, _ = run("stats", zoo)
    assert code == 0
    assert all(name in out for name in whole.spec.slices)
    assert run("verify", zoo, "--data", pictures, "--sample", "3")[0] == 0
    assert run("sample", zoo, tmp_path / "drawn", "--train", "2", "--seed", "1")[0] == 0
    assert len(Zoo.open(tmp_path / "drawn").sources("train").unique()) == 2
    assert run("split", zoo, tmp_path / "dealt", "--train", "0.5", "--val", "0.5", "--seed", "1")[0] == 0
    dealt = Zoo.open(tmp_path / "dealt")
    assert sum(dealt.count(split) for split in ("train", "val")) == sum(count.values())
    part = tmp_path / "part"
    assert run("sample", zoo, part, "--test", "1")[0] == 0
    assert run("merge", tmp_path / "drawn", part, "--out", tmp_path / "merged")[0] == 0
    assert Zoo.open(tmp_path / "merged").splits == ("train", "test")
    assert run("copy", zoo, tmp_path / "copied")[0] == 0
    assert Zoo.open(tmp_path / "copied").shards == whole.shards


def test_views_are_added(run: Run, zoo: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(zoo, tmp_path / "zoo")
    before = Zoo.open(zoo)
    assert run("add-views", tmp_path / "zoo", pictures, "--views", before.num_views + 1, "--workers", "1")[0] == 0
    after = Zoo.open(tmp_path / "zoo")
    assert after.num_views == before.num_views + 1
    assert after.count("train") > before.count("train")


def test_wrong_use_of_zoo_commands(run: Run, zoo: Path, pictures: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert_error(run("split", zoo, new, "--train", "0.5"), 2, "--val and --test that sum to 1, got 0.5")
    assert_error(run("sample", zoo, new), 2, "expected at least one of --train, --val and --test, got none")
    assert_error(run("fit", pictures, new, "--gpus", "1"), 2, "expected --executor ray with --address and --gpus")
    assert_error(run("fit", pictures, new, "--executor", "slurm"), 2, "slurm")
    assert not new.exists()
