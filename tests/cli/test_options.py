"""Options are declared once, in the dataclass."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import pytest
import typer

from weightspace.cli._options import argument_help, options
from weightspace.fitting import FitConfig
from weightspace.training import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """How to bake.

    Args:
        heat: of the oven,
            in degrees.
        kind: one of ``"cake"`` and "bread".
        minutes: until done; for ever where None.
        fan: whether it turns.

    Raises:
        ValueError: for a cold oven.
    """

    heat: float = 180.0
    kind: Literal["cake", "bread"] = "cake"
    minutes: int | None = None
    fan: bool = False

    def __post_init__(self) -> None:
        if self.heat <= 0:
            raise ValueError(f"heat: expected a positive number, got {self.heat}")


def parameters(command: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(command).parameters)


def help_of(parameter: inspect.Parameter) -> str | None:
    return get_args(parameter.annotation)[1].help


def test_help_is_that_of_the_docstring() -> None:
    assert argument_help(Recipe) == {
        "heat": "of the oven, in degrees.",
        "kind": 'one of "cake" and "bread".',
        "minutes": "until done; for ever where None.",
        "fan": "whether it turns.",
    }


def test_class_without_arguments_section_has_no_help() -> None:
    class Plain:
        """Nothing."""

    assert argument_help(Plain) == {}


@pytest.mark.parametrize("config", [FitConfig, TrainConfig])
def test_every_field_is_documented(config: type) -> None:
    assert list(argument_help(config)) == [field.name for field in dataclasses.fields(config)]


def test_command_gets_one_option_a_field() -> None:
    @options(Recipe)
    def bake(*, config: Recipe, oven: Annotated[str, typer.Argument(help="which")] = "big") -> tuple[Recipe, str]:
        """Bake."""
        return config, oven

    found = parameters(bake)
    assert list(found) == ["oven", "heat", "kind", "minutes", "fan"]
    assert {name: own.default for name, own in found.items()} == {
        "oven": "big",
        "heat": 180.0,
        "kind": "cake",
        "minutes": None,
        "fan": False,
    }
    assert [get_args(found[name].annotation)[0] for name in ("heat", "kind", "minutes", "fan")] == [
        float,
        str,
        int | None,
        bool,
    ]
    assert help_of(found["heat"]) == "of the oven, in degrees."
    assert bake.__name__ == "bake"
    assert bake.__doc__ == "Bake."
    given = {"heat": 200.0, "kind": "bread", "minutes": 5, "fan": True}
    assert bake(oven="small", **given) == (Recipe(200.0, "bread", 5, True), "small")


def test_fields_can_be_left_out_and_defaults_replaced() -> None:
    @options(Recipe, skip=("fan",), heat=99.0)
    def bake(*, config: Recipe) -> Recipe:
        return config

    found = parameters(bake)
    assert list(found) == ["heat", "kind", "minutes"]
    assert found["heat"].default == 99.0
    assert bake(heat=1.0, kind="cake", minutes=None) == Recipe(1.0)


def test_value_out_of_range_is_wrong_usage() -> None:
    @options(Recipe)
    def bake(*, config: Recipe) -> None:
        raise AssertionError("reached")

    with pytest.raises(typer.BadParameter, match="heat: expected a positive number, got -1"):
        bake(heat=-1.0, kind="cake", minutes=None, fan=False)


def test_error_of_the_command_itself_is_no_wrong_usage() -> None:
    @options(Recipe)
    def bake(*, config: Recipe) -> None:
        raise ValueError("burnt")

    with pytest.raises(ValueError, match="burnt"):
        bake(heat=1.0, kind="cake", minutes=None, fan=False)
