"""The pages are true: their code runs, their commands parse, and what they list is what there is."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from _helpers import ROOMS

import weightspace as ws
from weightspace import bench
from weightspace.bench._environment import environment
from weightspace.bench._record import Result, Row, Run
from weightspace.cli import UsageError, app
from weightspace.transforms import AUGMENTATIONS
from weightspace.zoo._format import DTYPES, Shard, ZooSettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("README.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(1 + text.count("\n", 0, block.start(1)), block[1]) for block in found]


def run_page(page: Path) -> int:
    """Execute a page's Python blocks in order, in one namespace; how many there were."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found = blocks(page, "python")
    for line, code in found:
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)
    return len(found)


def commands() -> list[tuple[str, str]]:
    lines = [
        (name, line.split(" #")[0].strip())
        for page, name in zip(PAGES, NAMES, strict=True)
        for _, code in blocks(page, "bash")
        for line in code.splitlines()
    ]
    return [(name, line) for name, line in lines if line.startswith("weightspace ")]


def parse(line: str) -> None:
    """Read a command line as the program would, without running it.

    Raises:
        LookupError: for an unknown command.
        UsageError: for an unknown option or value, or a missing argument.
    """
    _, name, *rest = [word for word in shlex.split(line) if word != "--debug"]
    known()[name].make_context(name, rest)


def known() -> dict[str, Any]:
    """The commands by name."""
    group: Any = typer.main.get_command(app)
    return group.commands


def table_names(page: str) -> set[str]:
    """Return the code in the first column of a page's tables."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        run_page(page)


def test_there_is_code_to_run() -> None:
    assert sum(len(blocks(page, "python")) for page in PAGES) > 20


def test_a_broken_page_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\na = 1\n```\n\n```python\nassert a == 2\n```\n")
    with pytest.raises(AssertionError):
        run_page(page)


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_parses(page: str, line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", ["weightspace fitt a b", "weightspace fit a b --stepz 3", "weightspace fit a"])
def test_a_wrong_command_does_not_parse(line: str) -> None:
    with pytest.raises((LookupError, UsageError)):
        parse(line)


def test_every_command_is_listed() -> None:
    listed = {name.split()[0] for name in table_names("howto/cli.md")}
    assert set(known()) == listed - {"WEIGHTSPACE_DATA", "WEIGHTSPACE_CACHE"}


def test_every_augmentation_is_listed() -> None:
    text = (ROOT / "docs/howto/augment.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `[^|]*` \| `([\w-]+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(AUGMENTATIONS)


def test_what_augmentations_keep_is_as_listed() -> None:
    text = (ROOT / "docs/howto/augment.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `[^|]*` \| `([\w-]+)` \|[^|]*\| (\w+) \|", text, re.MULTILINE)
    assert dict(rows) == {name: made.preserves for name, made in AUGMENTATIONS.items()}


def test_every_model_is_listed() -> None:
    assert set(ws.models.MODELS) <= table_names("howto/models.md")


def test_the_group_track_and_heads_of_models_are_as_listed() -> None:
    text = (ROOT / "docs/howto/models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \|[^|]*\| ([\w-]+) \| ([\w-]+) \| ([\w, ]+) \|", text, re.MULTILINE)
    listed = {name: (group, track, tuple(heads.split(", "))) for name, group, track, heads in rows}
    assert listed == {name: (m.equivariance, m.track, m.heads) for name, m in ws.models.MODELS.items()}


def test_every_suite_is_listed() -> None:
    assert set(bench.SUITES) <= table_names("howto/bench.md")


@pytest.mark.parametrize(("page", "config"), [("howto/fit.md", ws.FitConfig), ("howto/train.md", ws.TrainConfig)])
def test_every_field_of_a_configuration_is_listed(page: str, config: Any) -> None:
    assert {field.name for field in dataclasses.fields(config)} <= table_names(page)


def test_the_zoo_format_is_as_listed() -> None:
    fields = {"format", "version", "spec", "shards", *(field.name for field in dataclasses.fields(ZooSettings))}
    fields |= {field.name for field in dataclasses.fields(Shard)} | set(DTYPES)
    assert fields <= table_names("howto/fit.md")


def test_the_result_schema_is_as_listed() -> None:
    listed = table_names("howto/bench.md")
    assert {field.name for kind in (Result, Row) for field in dataclasses.fields(kind)} <= listed
    text = (ROOT / "docs/howto/bench.md").read_text(encoding="utf-8")
    inner = [field.name for field in dataclasses.fields(Run) if field.name != "history"]
    inner += environment()["hardware"]
    assert [name for name in inner if f"`{name}`" not in text] == []


@pytest.mark.parametrize("room", ["weightspace", *ROOMS])
def test_the_api_pages_list_the_public_surface(room: str) -> None:
    text = (ROOT / "docs" / "api" / f"{room}.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    if room == "weightspace":
        expected = [f"weightspace.{name}" for name in ws.__all__ if name not in ROOMS]
    else:
        expected = [f"weightspace.{room}.{name}" for name in importlib.import_module(f"weightspace.{room}").__all__]
    assert sorted(listed) == sorted(expected)


@pytest.mark.parametrize(
    "pattern", ["docs/**/*.md", "README.md", "examples/*.py", "benchmarks/*.py", "weightspace/**/*.py"]
)
def test_every_public_name_that_is_written_is_there(pattern: str) -> None:
    """Code that no test runs, comments and messages name things too."""
    written = {
        (path.name, name)
        for path in ROOT.glob(pattern)
        for name in re.findall(r"\bws((?:\.[a-z]\w*)?\.\w+)", path.read_text(encoding="utf-8"))
    }
    assert written
    assert {(page, name) for page, name in written if not _is_there(name)} == set()
    assert _is_there(".signals.grid")
    assert not _is_there(".signals.raster")


def _is_there(name: str) -> bool:
    """Whether a room has a name; what follows a noun or a function is not looked up."""
    owner, _, member = name[1:].partition(".")
    found = getattr(ws, owner, None)
    return found is not None and (not inspect.ismodule(found) or not member or hasattr(found, member))


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").glob("**/*.md")}


def named_tests(text: str) -> list[tuple[str, str]]:
    """The tests that a page names as ``path::function``."""
    return re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)


def missing(named: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the tests that are not there."""
    return [(file, name) for file, name in named if f"\ndef {name}(" not in (ROOT / file).read_text(encoding="utf-8")]


def test_every_guarantee_names_tests_that_are_there() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    assert missing(named_tests(text)) == []
    rows = [row for row in text.splitlines() if row.startswith("| ") and not row.startswith("| Guarantee")]
    assert len(rows) > 20
    assert all(named_tests(row) for row in rows)
    assert missing([("tests/docs/test_docs.py", "test_that_nobody_wrote")])  # the control


def test_the_files_that_the_security_policy_names_are_there() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(?:python )?(tests/[\w/.]+)`", text)
    assert len(named) > 4
    assert all((ROOT / name).exists() for name in named)


def test_every_picture_and_script_of_the_pages_is_there() -> None:
    for page in PAGES:
        for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / path).resolve().is_file(), f"{page}: {path}"


def test_the_readme_is_short_and_its_outputs_are_true(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    run_page(ROOT / "README.md")
    printed = capsys.readouterr().out
    tour = text[text.index("## A tour") :]
    for output in re.findall(r"^```\n\n```text\n(.*?)^```$", tour, flags=re.MULTILINE | re.DOTALL):
        assert output in printed


# --- the checklists under docs/extend


@pytest.mark.parametrize("kind", ["augmentation", "model", "aligner", "objective", "data-set", "suite"])
def test_every_checklist_has_as_many_places_as_it_says(kind: str) -> None:
    text = (ROOT / "docs" / "extend" / f"{kind}.md").read_text(encoding="utf-8")
    words = {"two": 2, "three": 3, "four": 4}
    found = re.search(r"## In the library: (\w+) places", text)
    assert found
    steps = re.findall(r"^\d+\. ", text[found.end() :], re.MULTILINE)
    assert len(steps) == words[found[1]]
    assert words[found[1]] <= {"augmentation": 4, "model": 4, "suite": 2}.get(kind, 3)


@pytest.mark.parametrize("kind", ["augmentation", "model", "aligner", "objective", "data-set", "suite"])
def test_the_places_of_a_checklist_are_there(kind: str) -> None:
    """Every file and folder that a checklist sends one to exists, and every table that it names is on its page."""
    text = (ROOT / "docs" / "extend" / f"{kind}.md").read_text(encoding="utf-8")
    steps = text[text.index("## In the library") :]
    for path in re.findall(r"`((?:weightspace|tests|benchmarks)/[\w/.]*)`", steps):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\((\.\./[\w/-]+\.md)", steps):
        assert (ROOT / "docs" / "extend" / path).resolve().is_file(), path


def code_of(kind: str) -> str:
    """The first Python block of a checklist."""
    return blocks(ROOT / "docs" / "extend" / f"{kind}.md", "python")[0][1]


def test_following_the_checklist_of_an_augmentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_augmentations.py").write_text(code_of("augmentation"))
    monkeypatch.chdir(tmp_path)
    made = ws.transforms.augmentation("their_augmentations:Shrink+noise")
    w = ws.testing.random_weights(ws.siren(2, 4, 1), 3, generator=torch.Generator().manual_seed(0))
    assert made(w, generator=torch.Generator().manual_seed(0)).flat.shape == w.flat.shape


def test_following_the_checklist_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_models.py").write_text(code_of("model"))
    monkeypatch.chdir(tmp_path)
    spec = ws.siren(2, 4, 1)
    model = ws.models.build("their_models:LinearStatistics", spec, 3, seed=0)
    w = ws.testing.random_weights(spec, 3, generator=torch.Generator().manual_seed(0))
    model.normalize.fit(w)
    assert model(w).shape == (3, 3)
    again = ws.models.load_model(ws.models.save_model(model, tmp_path / "kept"))
    assert torch.equal(again(w), model(w))


def test_following_the_checklists_of_a_data_set_and_a_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_data.py").write_text(code_of("data-set"))
    (tmp_path / "their_suites.py").write_text(code_of("suite"))
    monkeypatch.chdir(tmp_path)
    data = ws.datasets.load("their_data:RINGS")
    zoo = ws.fit_zoo(tmp_path / "zoo", data, ws.siren(2, 4, 1), config=ws.FitConfig(steps=2), counts={"train": 60})
    path = bench.run_suite("their_suites:MINE", zoo.path, tmp_path / "out", only=["mlp"], epochs=1, workers=1)
    rows = json.loads(Path(path).read_text())["rows"]
    assert {row["augmentation"] for row in rows} == {"none", "noise", "both", "mixup-ends"}
