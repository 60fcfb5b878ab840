"""Names and the things that they stand for: the table, an import path, an entry point of an installed package."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from weightspace import _plugins
from weightspace._plugins import find, subclass_of

TABLE = {"one": 1, "two": 2}


def test_the_table_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plugins, "entry_points", lambda group: [EntryPoint("one", "math:pi", group)])
    assert find("models", "one", TABLE) == 1


def test_an_import_path_is_imported_and_the_working_directory_searched_last(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "their_models.py").write_text("class Mine(dict):\n    inner = 5\n")
    (tmp_path / "json.py").write_text("raise SystemExit('hidden')\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert issubclass(find("models", "their_models:Mine", TABLE, subclass_of(dict)), dict)
    assert find("models", "their_models:Mine.inner", TABLE) == 5
    assert find("models", "json:dumps", TABLE)([1]) == "[1]"
    assert sys.path == before


def test_entry_points_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = []

    def points(group: str) -> list[EntryPoint]:
        groups.append(group)
        return [EntryPoint("pi", "math:pi", group), EntryPoint("lost", "no_such_module:x", group)]

    monkeypatch.setattr(_plugins, "entry_points", points)
    assert find("suites", "pi", TABLE) == pytest.approx(3.14159, abs=1e-5)
    assert groups == ["weightspace.suites"]
    with pytest.raises(ValueError, match=r"suites: the entry point 'lost' cannot be loaded: ModuleNotFoundError"):
        find("suites", "lost", TABLE)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "tow",
            "or an import path such as my_package.module:Name, got 'tow'; did you mean 'two'?",
        ),
        (
            "no_such_module:X",
            "models: expected a module that can be imported, got 'no_such_module': ModuleNotFoundError",
        ),
        ("math:no", "models: expected an object named 'no' in the module math, got none"),
        (":x", "models: expected an import path such as"),
        ("math:pi", "models: math:pi: expected a class, got float"),
        (
            "collections:OrderedDict",
            "models: collections:OrderedDict: expected a subclass of builtins.list, got OrderedDict",
        ),
    ],
)
def test_bad_names_are_refused_in_one_line(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        find("models", name, TABLE, subclass_of(list))
    assert "\n" not in str(caught.value)


def test_a_module_that_raises_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"models: the module 'broken_module' raised on import: ZeroDivisionError"):
        find("models", "broken_module:X", TABLE)
    with pytest.raises(TypeError, match="models: expected a name, got int"):
        find("models", 3, TABLE)  # type: ignore[arg-type]
