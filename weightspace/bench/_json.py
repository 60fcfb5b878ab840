"""JSON files that a person can review, and readers that name the file and the field that is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from weightspace._files import write_atomic

WIDTH = 120
T = TypeVar("T")


def dumps(value: Any) -> str:
    """Return JSON whose short values share lines of at most 120 characters.

    Example:
        >>> print(dumps({"name": "a row of scalars", "mean": 0.5, "spread": None}))
        {"name": "a row of scalars", "mean": 0.5, "spread": null}
    """
    return _text(value, 0, 0)


def _text(value: Any, indent: int, before: int) -> str:
    """Write a value that stands behind ``before`` characters, in lines that begin with ``indent`` spaces."""
    flat = json.dumps(value, allow_nan=False)
    if not isinstance(value, dict | list | tuple) or not value or indent + before + len(flat) < WIDTH:
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        keys = {key: f"{json.dumps(str(key))}: " for key in value}
        pieces = [keys[key] + _text(own, indent + 1, len(keys[key])) for key, own in value.items()]
    else:
        pieces = [_text(own, indent + 1, 0) for own in value]
    lines: list[str] = []
    for piece in pieces:
        line = f"{lines[-1]}, {piece}" if lines else ""
        if lines and "\n" not in line and len(pad) + len(line) < WIDTH:
            lines[-1] = line
        else:
            lines.append(piece)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + pad + f",\n{pad}".join(lines) + "\n" + " " * indent + closing


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_atomic(path, (dumps(value) + "\n").encode())


def read_as(kind: type[T], data: Any, place: str = "") -> T:
    """Read a dataclass from parsed JSON; keys that it does not declare are left out.

    Args:
        kind: the dataclass; its fields are numbers, text, booleans, tuples, dictionaries or dataclasses.
        data: what was parsed.
        place: the path to ``data`` inside the file, for the message.

    Raises:
        ValueError: for a missing key or a value of another type, with the path to it.

    Example:
        >>> @dataclasses.dataclass
        ... class Point:
        ...     x: float
        >>> read_as(Point, {"x": "one"}, "rows[3]")
        Traceback (most recent call last):
        ValueError: rows[3].x: expected a finite number, got 'one'
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{place or 'the file'}: expected an object, got {_shown(data)}")
    hints, found = get_type_hints(kind), {}
    prefix = f"{place}." if place else ""
    for field in dataclasses.fields(kind):  # pyright: ignore[reportArgumentType]
        if field.name in data:
            found[field.name] = _value(hints[field.name], data[field.name], prefix + field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{prefix}{field.name}: expected a value, got none")
    return kind(**found)


def _value(hint: Any, value: Any, place: str) -> Any:
    """Return one value as its type says."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, Union):
        optional = type(None) in arguments
        if value is None and optional:
            return None
        (inner,) = (one for one in arguments if one is not type(None))
        return _value(inner, value, place)
    if dataclasses.is_dataclass(hint):
        return read_as(hint, value, place)  # pyright: ignore[reportArgumentType]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{place}: expected a list, got {_shown(value)}")
        return tuple(_value(arguments[0], own, f"{place}[{number}]") for number, own in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{place}: expected an object, got {_shown(value)}")
        return {str(key): _value(arguments[1], own, f"{place}.{key}") for key, own in value.items()}
    return _scalar(hint, value, place)


def _scalar(hint: type, value: Any, place: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and is_number and abs(value) < 1e300 and math.isfinite(value):
        return float(value)
    if hint is int and is_number and isinstance(value, int):
        return value
    if hint in (bool, str) and isinstance(value, hint):
        return value
    name = {float: "a finite number", int: "a whole number", bool: "true or false", str: "text"}[hint]
    raise ValueError(f"{place}: expected {name}, got {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
