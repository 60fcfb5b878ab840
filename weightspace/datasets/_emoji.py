"""The emoji data set: concepts that several vendors drew, with the groups of the Unicode standard as classes."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from weightspace._checks import whole_number
from weightspace._extras import optional
from weightspace._files import parse_json
from weightspace.datasets._packages import debian_files, debian_package, npm_file, npm_package
from weightspace.signals._groups import group_numbers, shuffled, split_groups, stable_numbers
from weightspace.signals._sets import ImageSet

PACKAGES = {
    "twemoji": "1.2.5",
    "noto": "1.2.9",
    "noto-v1": "1.2.5",
    "openmoji": "1.2.29",
    "emojione": "1.2.3",
    "emojione-v1": "1.2.3",
    "fluent-emoji-flat": "1.2.6",
    "fluent-emoji": "1.2.7",
}
"""The npm packages ``@iconify-json/NAME``, in the versions of the figures in the documentation."""

TABLE = Path("/usr/share/unicode/emoji/emoji-test.txt")
"""The table of emoji that Debian's package unicode-data installs."""

_TONES = frozenset(range(0x1F3FB, 0x1F400))
_IGNORED = _TONES | {0xFE0E, 0xFE0F}
_JOINER, _GENDER = 0x200D, (0x2640, 0x2642)
_PERSONS = {
    0x1F468: 0x1F9D1,
    0x1F469: 0x1F9D1,
    0x1F466: 0x1F9D2,
    0x1F467: 0x1F9D2,
    0x1F474: 0x1F9D3,
    0x1F475: 0x1F9D3,
}
_TONE_NAME = re.compile(r"-(light|medium-light|medium|medium-dark|dark)-skin-tone")

Concept = tuple[int, ...]
"""A code point sequence without skin tones and variation selectors."""


@dataclass(frozen=True)
class Table:
    """The Unicode table of emoji: the group of every concept, and the code point sequence of every name."""

    groups: Mapping[Concept, str]
    names: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Drawing:
    """One vendor's SVG drawing of one concept; ``toned`` if it shows one of the five skin tones."""

    vendor: str
    name: str
    concept: Concept
    toned: bool
    svg: str


def concept_of(points: Sequence[int]) -> Concept:
    """Strip a code point sequence of skin tones and variation selectors."""
    return tuple(point for point in points if point not in _IGNORED)


def _without_gender(concept: Concept) -> Concept:
    """Replace men and women by persons, boys and girls by children, and drop the signs of gender."""
    out: list[int] = []
    for point in concept:
        if point in _GENDER and out and out[-1] == _JOINER:
            out.pop()
        else:
            out.append(_PERSONS.get(point, point))
    return tuple(out)


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9#*]+", "-", re.sub(r"[\"'.!()]", "", plain)).strip("-")


def read_table(text: str, where: str = "emoji-test.txt") -> Table:
    """Read the table ``emoji-test.txt`` of the Unicode standard (UTS 51), without its group "Component".

    Raises:
        ValueError: if a line is malformed or there are no groups.
    """
    groups: dict[Concept, str] = {}
    names: dict[str, tuple[int, ...]] = {}
    group = "Component"
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("# group:"):
            group = line.split(":", 1)[1].strip()
        if not line.strip() or line.startswith("#") or group == "Component":
            continue
        found = re.match(r"([0-9A-Fa-f ]+);\s*[\w-]+\s*#\s*\S+\s+E[\d.]+\s+(.+)", line)
        if found is None:
            raise ValueError(f"{where}: line {number}: expected 'code points ; status # emoji name', got {line[:60]!r}")
        points = tuple(int(point, 16) for point in found[1].split())
        groups.setdefault(concept_of(points), group)
        names.setdefault(_slug(found[2]), points)
    if not groups:
        raise ValueError(f"{where}: expected the groups of emoji-test.txt, got none; take the file of unicode-data")
    return Table(groups, names)


def drawings(packages: Mapping[str, tuple[dict[str, Any], dict[str, str]]], table: Table) -> Iterator[Drawing]:
    """Iterate over the drawings of all vendors whose concept is in the table.

    The code points of a drawing (``chars.json``) identify its concept. If its package has none, its name does: the name
    in the table, or in another package. Hidden drawings are left out.

    Args:
        packages: vendor to the contents of ``icons.json`` and of ``chars.json``.
        table: the concepts.
    """
    known = _known_names(packages.values(), table)
    for vendor, (icons, chars) in packages.items():
        points = {name: _points(code) for code, name in reversed(chars.items())}  # the first of several codes remains
        names = _names(icons)
        for name, icon in icons["icons"].items():
            found = points.get(name) if chars else _by_name(names[name], known)
            if found is not None and concept_of(found) in table.groups and not icon.get("hidden"):
                toned = not _TONES.isdisjoint(found) or _TONE_NAME.search(name) is not None
                yield Drawing(vendor, name, concept_of(found), toned, _svg(icons, icon))


def _points(code: str) -> tuple[int, ...]:
    return tuple(int(point, 16) for point in code.split("-"))


def _names(icons: dict[str, Any]) -> dict[str, list[str]]:
    """List every icon's names: its own first, then its aliases."""
    names = {name: [name] for name in icons["icons"]}
    for alias, entry in icons.get("aliases", {}).items():
        if entry["parent"] in names:
            names[entry["parent"]].append(alias)
    return names


def _by_name(names: Sequence[str], known: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    names = [*names, *(name.replace("flag-for-", "flag-") for name in names if name.startswith("flag-for-"))]
    spelt = [*names, *(_TONE_NAME.sub("", name) for name in names)]
    return next((known[name] for name in spelt if name in known), None)


def _known_names(packages: Iterable[tuple[dict[str, Any], dict[str, str]]], table: Table) -> dict[str, tuple[int, ...]]:
    """Collect the names that mean a single concept in all packages with code points; the table overrides them."""
    meant: dict[str, tuple[int, ...]] = {}
    doubtful: set[str] = set()
    for icons, chars in packages:
        names = _names(icons)
        for code, icon in chars.items():
            found = _points(code)
            for name in names.get(icon, ()) if concept_of(found) in table.groups else ():
                if concept_of(meant.setdefault(name, found)) != concept_of(found):
                    doubtful.add(name)
    return {name: found for name, found in meant.items() if name not in doubtful} | dict(table.names)


def _svg(icons: dict[str, Any], icon: dict[str, Any]) -> str:
    left, top = icon.get("left", icons.get("left", 0)), icon.get("top", icons.get("top", 0))
    width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    )


def render(svg: str, size: int) -> np.ndarray:
    """Render an SVG drawing in the middle of a white square, uint8 ``[size, size, 3]``."""
    resvg = optional("resvg_py", "resvg_py", "emoji", "drawing the emoji")
    for finer in (1, 2, 4):  # some filters make resvg panic at some sizes: then draw finer and average
        side = size * finer
        framed = re.sub(r'width="[^"]*" height="[^"]*">', f'width="{side}" height="{side}">', svg, count=1)
        try:
            png = resvg.svg_to_bytes(svg_string=framed, background="white", skip_system_fonts=True)
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            continue
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            return np.asarray(image.convert("RGB").reduce(finer))
    raise ValueError(f"expected a drawing that resvg can draw at {size} pixels, got one it cannot: {svg[:80]}...")


def emoji_set(
    found: Sequence[Drawing],
    table: Table,
    *,
    size: int,
    on_progress: Callable[[int], None] | None = None,
    **facts: Any,
) -> ImageSet:
    """Render drawings and make them an image set with labels, and with splits by concept.

    Concepts that differ in gender alone (woman, man, person) count as one, and so do those of which two drawings are
    equal, pixel by pixel: some vendors draw one flag for two territories, or one picture for all families of a size.

    Raises:
        ValueError: if there are no drawings.
    """
    if not found:
        raise ValueError("emoji: expected drawings whose code points or names are in emoji-test.txt, got none")
    pictures = []
    for drawing in found:
        try:
            pictures.append(render(drawing.svg, size))
        except ValueError as error:
            raise ValueError(f"{drawing.vendor}/{drawing.name}: {error}") from error
        if on_progress is not None:
            on_progress(len(pictures))
    images = np.stack(pictures)
    concepts = ["-".join(f"{point:x}" for point in drawing.concept) for drawing in found]
    groups = group_numbers(
        concepts, [_without_gender(d.concept) for d in found], [picture.tobytes() for picture in pictures]
    )
    classes = tuple(dict.fromkeys(table.groups.values()))
    labels = np.array([classes.index(table.groups[drawing.concept]) for drawing in found])
    sources = stable_numbers([f"{drawing.vendor}/{drawing.name}" for drawing in found])
    return ImageSet(
        images=images,
        labels=labels,
        sources=sources,
        splits=shuffled(split_groups(groups, labels), sources),
        classes=classes,
        groups=groups,
        **facts,
    )


@dataclass(frozen=True)
class EmojiOptions:
    """Options of the emoji data set.

    Args:
        size: pixels each way.
        tones: whether to add the drawings with skin tones to the plain ones.
    """

    size: int = 32
    tones: bool = False

    def __post_init__(self) -> None:
        whole_number("size", self.size)


OPTIONS = EmojiOptions()
"""The default options."""


def build_emoji(
    folder: Path, options: EmojiOptions, *, on_progress: Callable[[int], None] | None = None, **facts: Any
) -> tuple[ImageSet, list[Path]]:
    """Fetch the packages and draw the emoji; return the image set and the files it was made of."""
    optional("resvg_py", "resvg_py", "emoji", "drawing the emoji")  # it should fail before anything is fetched
    place, text = _table_text(folder)
    table = read_table(text, str(place))
    paths, packages = [place], {}
    for vendor, version in PACKAGES.items():
        path = npm_package(f"@iconify-json/{vendor}", version, folder)
        packages[vendor] = (_json(path, "icons.json"), _json(path, "chars.json"))
        paths.append(path)
    found = [drawing for drawing in drawings(packages, table) if options.tones or not drawing.toned]
    return emoji_set(found, table, size=options.size, on_progress=on_progress, **facts), paths


def _json(path: Path, name: str) -> dict[str, Any]:
    data = npm_file(path, name)
    try:
        content = parse_json(data) if data is not None else {}
        if name == "icons.json" and not isinstance(content["icons"], dict):
            raise TypeError("icons is not an object")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected an icon set with {name}, got: {error!r}; delete it to fetch it") from error
    return content


def _table_text(folder: Path) -> tuple[Path, str]:
    """Read ``emoji-test.txt`` from the folder, the installed package or the fetched package; return origin and text."""
    for path in (folder / TABLE.name, TABLE):
        if path.is_file():
            return path, path.read_text(encoding="utf-8")
    package = debian_package("unicode-data", folder)
    with debian_files(package, f"/{TABLE.name}") as files:
        for _, content in files:
            return package, content.decode()
    raise ValueError(f"{package}: expected {TABLE.name} in it, got none; put it beside the package")
