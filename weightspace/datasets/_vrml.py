"""The triangles of a VRML 2.0 file: its IndexedFaceSets, with Transforms, groups and DEF/USE resolved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

_SKIPPED = re.compile(r'"(?:[^"\\]|\\.)*+"?|#[^\n]*', re.DOTALL)  # possessive, and so linear in the file's length
_ARRAY = re.compile(r"\[([-+\d\s,.eE]*)\]")
_TOKEN = re.compile(r"[\[\]{}]|[^\s,\[\]{}]+")
_NUMBER = re.compile(r"[+-]?(?:\d|\.\d)")
_GROUPS = ("Group", "Transform", "Anchor", "Collision", "Billboard")
MOST_GROWTH = 16
"""Shapes that are used again and again may give this many nodes and faces for each character of the file."""
_LEAST_ALLOWED = 1 << 20
_NODE = 16  # a node counts as so many faces, as it takes longer
_SOLIDS = ("Box", "Cone", "Cylinder", "Sphere", "ElevationGrid", "Extrusion", "Inline", "Text")

Node = dict[str, Any]
"""A node: its fields by name, and its type under the empty name. Numbers remain text until they are needed."""


class _Parser:
    """A recursive descent parser of nodes; ``@number`` stands for an array of numbers, which was cut out before."""

    def __init__(self, text: str) -> None:
        self.arrays: list[str] = []
        # The content of strings is not used: a word stands for each.
        text = _SKIPPED.sub(lambda match: " text " if match[0][0] == '"' else " ", text)
        self.tokens = [*_TOKEN.findall(_ARRAY.sub(self._cut, text)), ""]  # the empty word marks the end
        self.at = 0
        self.named: dict[str, Node] = {}

    def _cut(self, match: re.Match[str]) -> str:
        self.arrays.append(match[1])
        return f" @{len(self.arrays) - 1} "

    def _peek(self) -> str:
        return self.tokens[self.at]

    def _next(self) -> str:
        token = self.tokens[self.at]
        if not token:
            raise ValueError("the file ends within a node: it is truncated")
        self.at += 1
        return token

    def scene(self) -> list[Node]:
        nodes = []
        while self._peek():
            if self._peek() == "ROUTE":
                self.at += 4
            else:
                nodes.append(self._node())
        return nodes

    def _node(self) -> Node:
        token = self._next()
        if token == "USE":
            name = self._next()
            if name not in self.named:
                raise ValueError(f"USE {name}, which no DEF names")
            return self.named[name]
        name = self._next() if token == "DEF" else None
        node: Node = {"": self._next() if name is not None else token}
        if node[""] in ("PROTO", "EXTERNPROTO"):
            raise ValueError(f"{node['']} is not supported; export plain shapes")
        if name is not None:
            self.named[name] = node
        if self._next() != "{":
            raise ValueError(f"expected a node, got {node['']!r}")
        while self._peek() != "}":
            if self._peek() == "ROUTE":
                self.at += 4
                continue
            field = self._next()
            node[field] = self._value()
        self._next()
        return node

    def _value(self) -> Any:
        """Parse the value of a field: a node, a list of nodes, an array, or one or more words and numbers."""
        token = self._peek()
        if token == "[":
            self._next()
            items = []
            while self._peek() != "]":
                items.append(self._value())
            self._next()
            return items
        if token.startswith("@"):
            return self.arrays[int(self._next()[1:])]
        if _NUMBER.match(token):
            words = []
            while _NUMBER.match(self._peek()):
                words.append(self._next())
            return " ".join(words)
        if token in ("DEF", "USE") or (token and self.tokens[self.at + 1] == "{"):
            return self._node()
        return self._next()


def read_vrml(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Read vertices ``[vertex, 3]`` and triangles ``[face, 3]`` of all IndexedFaceSets; polygons become fans.

    Lines, points, colours and normals are ignored. Of a Switch the chosen child counts, of an LOD the first.

    Raises:
        ValueError: for another format or version, a malformed file, no faces, or a solid that is not given by faces.
    """
    if not text.startswith("#VRML V2.0"):
        raise ValueError(f"expected VRML 2.0 (a first line '#VRML V2.0 utf8'), got {text[:20]!r}")
    vertices, faces, count = [], [], 0
    for v, f in _face_sets(_Parser(text).scene(), None, _Budget(max(MOST_GROWTH * len(text), _LEAST_ALLOWED))):
        vertices.append(v)
        faces.append(f + count)
        count += len(v)
    if not faces:
        raise ValueError("expected at least one IndexedFaceSet with faces, got none")
    return np.concatenate(vertices), np.concatenate(faces)


class _Budget:
    """How many nodes and faces may still be made: a few lines of nodes that use each other can stand for any number."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError("far more nodes and faces than the file has text, by USE of USE; export the shapes plain")


def _face_sets(
    nodes: list[Node], matrix: np.ndarray | None, budget: _Budget
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    budget.spend(_NODE * len(nodes))
    for node in nodes:
        kind = node[""]
        if kind in _GROUPS:
            inner = matrix
            if kind == "Transform":
                inner = _transform(node) if matrix is None else matrix @ _transform(node)
            yield from _face_sets(_nodes(node.get("children")), inner, budget)
        elif kind == "Switch":
            chosen = int(node.get("whichChoice", -1))
            children = _nodes(node.get("choice"))[chosen : chosen + 1] if chosen >= 0 else []
            yield from _face_sets(children, matrix, budget)
        elif kind == "LOD":
            yield from _face_sets(_nodes(node.get("level"))[:1], matrix, budget)
        elif kind == "Shape":
            yield from _face_sets(_nodes(node.get("geometry")), matrix, budget)
        elif kind in _SOLIDS:
            raise ValueError(f"expected shapes given by faces, got a {kind}; export it as triangles")
        elif kind == "IndexedFaceSet" and (found := _face_set(node)) is not None:
            v, f = found
            budget.spend(len(v) + len(f))
            if matrix is None:
                yield v, f
                continue
            v = v @ matrix[:3, :3].T + matrix[:3, 3]
            yield v, f[:, ::-1] if np.linalg.det(matrix[:3, :3]) < 0 else f  # a mirror turns the faces inside out


def _nodes(value: Any) -> list[Node]:
    """List the nodes of a field: none, one or several."""
    return [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, dict)]


def _face_set(node: Node) -> tuple[np.ndarray, np.ndarray] | None:
    points = _nodes(node.get("coord"))
    numbers = _numbers(points[0].get("point", "")) if points else np.empty(0)
    index = _whole_numbers(node.get("coordIndex", ""))
    if len(numbers) % 3:
        raise ValueError(f"point: expected three numbers a point, got {len(numbers)} in all")
    faces = _triangles(index)
    if not len(faces):
        return None
    vertices = numbers.reshape(-1, 3)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"coordIndex: expected numbers of {len(vertices)} points, got {faces.min()} to {faces.max()}")
    return vertices, faces[:, ::-1] if node.get("ccw") == "FALSE" else faces


def _numbers(text: Any) -> np.ndarray:
    if not isinstance(text, str):
        return np.empty(0)
    return np.array(text.replace(",", " ").split(), dtype=np.float64)


def _whole_numbers(text: Any) -> np.ndarray:
    found = _numbers(text)
    good = (found == np.floor(found)) & (np.abs(found) < 2**53)
    if not good.all():
        raise ValueError(f"coordIndex: expected whole numbers, got {found[~good][0]:g}")
    return found.astype(np.int64)


def _triangles(index: np.ndarray) -> np.ndarray:
    """Cut polygons, each of which ends in -1, into fans ``[face, 3]``."""
    if len(index) and index[-1] != -1:
        index = np.append(index, -1)
    if len(index) % 4 == 0 and (quads := index.reshape(-1, 4) < 0)[:, 3].all() and not quads[:, :3].any():
        return index.reshape(-1, 4)[:, :3]  # triangles already
    ends = np.flatnonzero(index == -1)
    sizes = np.diff(np.concatenate([[-1], ends])) - 1
    starts = ends - sizes
    fans = np.maximum(sizes - 2, 0)
    start, first = np.repeat(starts, fans), np.repeat(np.cumsum(fans) - fans, fans)
    step = np.arange(len(start)) - first
    return index[np.stack([start, start + step + 1, start + step + 2], axis=1)]


def _transform(node: Node) -> np.ndarray:
    """Compute the matrix of a Transform: T C R SR S -SR -C (VRML97, 6.52)."""

    def moved(by: np.ndarray) -> np.ndarray:
        out = np.eye(4)
        out[:3, 3] = by
        return out

    def field(name: str, default: str, size: int) -> np.ndarray:
        values = _numbers(node.get(name, default))
        if len(values) != size:
            raise ValueError(f"{name}: expected {size} numbers, got {len(values)}")
        return values

    centre = field("center", "0 0 0", 3)
    turn = _rotation(field("rotation", "0 0 1 0", 4))
    axes = _rotation(field("scaleOrientation", "0 0 1 0", 4))
    scale = np.diag([*field("scale", "1 1 1", 3), 1.0])
    inner = turn @ axes @ scale @ axes.T
    return moved(field("translation", "0 0 0", 3)) @ moved(centre) @ inner @ moved(-centre)


def _rotation(axis_angle: np.ndarray) -> np.ndarray:
    """Compute the 4x4 matrix of a rotation by Rodrigues' formula."""
    out, axis, angle = np.eye(4), axis_angle[:3], axis_angle[3]
    length = np.linalg.norm(axis)
    if length:
        x, y, z = axis / length
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        out[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return out
