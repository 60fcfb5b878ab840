"""``spec.json``: what an export says of its networks beside ``splits.json``, so that an import is the inverse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weightspace._files import write_atomic
from weightspace._spec import NetSpec
from weightspace.zoo._format import check_settings
from weightspace.zoo._zoo import Zoo

FORMAT = "weightspace-state-dicts"
VERSION = 1
ABOUT = "spec.json"
SETTINGS = ("init_regime", "classes", "recipe", "seed")


def write_about(zoo: Zoo, folder: Path) -> None:
    """Write the spec and the settings of a zoo into the folder of its state dicts."""
    settings = {name: getattr(zoo, name) for name in SETTINGS}
    body = {"format": FORMAT, "version": VERSION, "spec": json.loads(zoo.spec.to_json()), **settings}
    write_atomic(folder / ABOUT, json.dumps(body, indent=1, allow_nan=False).encode())


def read_about(folder: Path) -> tuple[NetSpec, dict[str, Any]] | None:
    """The spec and the settings that an export wrote into a folder; ``None`` where there is no such file.

    Raises:
        ValueError: for a file of that name that is not one of an export, or is malformed.
    """
    path = folder / ABOUT
    if not path.is_file():
        return None
    try:
        body = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got something else: {error}; pass spec=") from error
    found = (body.get("format"), body.get("version")) if isinstance(body, Mapping) else type(body).__name__
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"{path}: expected format {FORMAT!r}, version {VERSION}, as an export writes it, got {found}; pass spec="
        )
    settings = {name: body[name] for name in SETTINGS if name in body}
    try:
        spec = NetSpec.from_json(json.dumps(body.get("spec")))
        check_settings(settings)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: malformed: {error}; export again, or pass spec=") from error
    return spec, settings
