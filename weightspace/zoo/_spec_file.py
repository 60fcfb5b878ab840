"""``spec.json``: the spec and the settings of a zoo, in the folder of its exported state dicts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weightspace._files import read_json, write_atomic
from weightspace._spec import NetSpec
from weightspace.zoo._format import check_settings
from weightspace.zoo._zoo import Zoo

FORMAT = "weightspace-state-dicts"
VERSION = 1
SPEC_FILE = "spec.json"
EXPORTED = ("init_regime", "classes", "recipe", "seed")


def write_spec_file(zoo: Zoo, folder: Path, *, real_labels: bool) -> None:
    """Write the spec and the settings of a zoo into the folder of its state dicts.

    Args:
        zoo: the zoo.
        folder: the folder.
        real_labels: whether its labels are real-valued, which a list of whole values does not say.
    """
    settings = {name: getattr(zoo, name) for name in EXPORTED}
    kind = {"labels": "real"} if real_labels else {}
    spec = json.loads(zoo.spec.to_json())
    body = {"format": FORMAT, "version": VERSION, "spec": spec, **kind, **settings}
    write_atomic(folder / SPEC_FILE, json.dumps(body, indent=1, allow_nan=False).encode())


def read_spec_file(folder: Path) -> tuple[NetSpec, dict[str, Any], bool] | None:
    """Read what an export wrote into a folder; ``None`` where there is no such file.

    Returns:
        The spec, the settings, and whether labels are real-valued.

    Raises:
        ValueError: for a file of that name that is not one of an export, or is malformed.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        return None
    try:
        body = read_json(path, "a spec that an export wrote")
    except ValueError as error:
        raise ValueError(f"{error}; pass spec=") from error
    found = (body.get("format"), body.get("version")) if isinstance(body, Mapping) else type(body).__name__
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"{path}: expected format {FORMAT!r}, version {VERSION}, as an export writes it, got {str(found)[:200]!r}; "
            "pass spec="
        )
    settings = {name: body[name] for name in EXPORTED if name in body}
    try:
        spec = NetSpec.from_json(json.dumps(body.get("spec")))
        check_settings(settings)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: malformed: {error}; export again, or pass spec=") from error
    return spec, settings, body.get("labels") == "real"
