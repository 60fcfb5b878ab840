"""The data in a pickle of plain containers, text, numbers and arrays of bytes; nothing that it names is imported."""

from __future__ import annotations

import math
import pickletools
from typing import Any

import numpy as np

_MARK = object()
_ARRAYS = (
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
)
_DTYPE = ("numpy", "dtype")
_KEYS = (str, bytes, int)
_VALUES = (
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PYTHON2_TEXT = ("STRING", "BINSTRING", "SHORT_BINSTRING")


class _Object:
    """An array or a type of numbers as the pickle describes it: what it was made of, and its state."""

    def __init__(self, kind: tuple[str, str], args: Any) -> None:
        self.kind, self.args = kind, args
        self.state: Any = None


class _Global:
    """The name of one of the few things that a pickle may name."""

    def __init__(self, name: tuple[str, str]) -> None:
        self.name = name


def read_plain(data: bytes) -> Any:
    """Read a pickle without running anything, in time and memory that grow with its length.

    The instructions of the pickle are followed one by one. Those that would import or call anything but NumPy's
    reconstruction of an array of unsigned bytes are refused. Text of Python 2 becomes bytes; arrays become arrays.

    Raises:
        ValueError: for an instruction that is refused, or a pickle that is cut or malformed.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for code, arg, _ in pickletools.genops(data):
        name = code.name
        if name in _VALUES:
            value = _CONSTANTS.get(name, arg)
            stack.append(value.encode("latin-1") if name in _PYTHON2_TEXT and isinstance(value, str) else value)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif name == "STOP":
            return array_of(stack[-1]) if isinstance(stack[-1], _Object) else stack[-1]
        elif name not in ("PROTO", "FRAME"):
            _follow(name, arg, stack)
    raise ValueError("it ends before its end")


def _follow(name: str, arg: Any, stack: list[Any]) -> None:
    """Follow an instruction that makes or fills a container, or describes an array."""
    if name == "MARK":
        stack.append(_MARK)
    elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
        stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}[name])
    elif name in ("LIST", "TUPLE", "DICT"):
        items = _to_mark(stack)
        stack.append(_dict(items) if name == "DICT" else tuple(items) if name == "TUPLE" else items)
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name == "APPEND":
        value = stack.pop()
        _of(list, stack).append(value)
    elif name == "APPENDS":
        items = _to_mark(stack)
        _of(list, stack).extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        items = _to_mark(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        _of(dict, stack).update(_dict(items))
    else:
        _describe(name, arg, stack)


def _describe(name: str, arg: Any, stack: list[Any]) -> None:
    """Follow an instruction that is part of the description of an array."""
    if name in ("GLOBAL", "STACK_GLOBAL"):
        module, attribute = str(arg).split(" ", 1) if name == "GLOBAL" else (stack.pop(-2), stack.pop())
        found = (module, attribute)
        if found not in (*_ARRAYS, _DTYPE):
            shown = ".".join(part for part in found if isinstance(part, str))  # a nested part may have no end
            raise ValueError(f"it asks for {shown[:100]}, which may run code")
        stack.append(_Global(found))
    elif name == "REDUCE":
        args, function = stack.pop(), stack.pop()
        if not isinstance(function, _Global):
            raise ValueError("it calls something other than a name")
        stack.append(_Object(function.name, args))
    elif name == "BUILD":
        state = stack.pop()
        _of(_Object, stack).state = state
    else:
        raise ValueError(f"it holds the instruction {name}, which data do not need")


def array_of(value: Any) -> np.ndarray:
    """Return the array of unsigned bytes that a pickle describes.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, _Object) or value.kind == _DTYPE or not _is_state(value.state):
        raise ValueError("expected an array of unsigned bytes")
    _, shape, kind, fortran, raw = value.state
    if not isinstance(kind, _Object) or not _is_bytes_type(kind) or not isinstance(raw, bytes):
        raise ValueError("expected an array of unsigned bytes")
    if math.prod(shape) != len(raw):
        raise ValueError(f"expected {math.prod(shape)} bytes for shape {list(shape)}, got {len(raw)}")
    return np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


def _is_state(state: Any) -> bool:
    """Return whether this is an array's state: version, shape, type, order and content."""
    if not isinstance(state, tuple) or len(state) != 5:
        return False
    shape = state[1]
    return isinstance(shape, tuple) and len(shape) <= 4 and all(type(n) is int and 0 <= n < 2**32 for n in shape)


def _is_bytes_type(kind: _Object) -> bool:
    args = kind.args
    return kind.kind == _DTYPE and isinstance(args, tuple) and bool(args) and args[0] in ("u1", b"u1")


def _to_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (value := stack.pop()) is not _MARK:
        items.append(value)
    return items[::-1]


def _dict(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2 or not all(type(key) in _KEYS for key in items[::2]):  # the hash of a nested key may never end
        raise ValueError("expected text or numbers as keys")
    return dict(zip(items[::2], items[1::2], strict=True))


def _of(kind: Any, stack: list[Any]) -> Any:
    if not isinstance(stack[-1], kind):
        raise ValueError(f"expected a {kind.__name__.strip('_').lower()} to fill, got a {type(stack[-1]).__name__}")
    return stack[-1]
