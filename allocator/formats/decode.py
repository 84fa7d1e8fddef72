"""Bytes to typed rows: malformed, truncated, non-finite or duplicate-keyed input becomes places and reasons."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UnsetType

from allocator.errors import Fault, ProblemError
from allocator.validation import MOST_FAULTS, pointer

T = TypeVar("T", bound=msgspec.Struct)
Path = tuple[str | int, ...]


def decode(data: bytes, kind: type[T], what: str) -> T:
    """Parse one JSON document as `kind`; top-level keys that start with x- are let through.

    Raises:
        ProblemError: up to 100 faults with JSON pointers.
    """
    try:
        return _decode(data, kind, what)
    except RecursionError:
        raise ProblemError([Fault("", "is nested too deeply to be read")], what) from None


def _decode(data: bytes, kind: type[T], what: str) -> T:
    try:
        _refuse_duplicates(data.decode(), what)
        top = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except ProblemError:
        raise
    except msgspec.ValidationError:
        raise ProblemError([Fault("", "must be one JSON object")], what) from None
    except ValueError as error:  # of json, msgspec and the text codec
        raise ProblemError([Fault("", _malformed(data, error))], what) from None
    known = {f.encode_name for f in _fields(kind)}
    faults = _identity(top, kind) or [
        Fault(pointer(key), "is not a key of the format; free keys start with 'x-' or go into 'meta'")
        for key in top
        if key not in known and not key.startswith("x-")
    ]
    if not faults:
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.ValidationError, RecursionError):
            faults = list(islice(_collect(msgspec.Raw(data), kind, ()), MOST_FAULTS))
    raise ProblemError(faults[:MOST_FAULTS], what)


def _identity(top: dict[str, msgspec.Raw], kind: type[msgspec.Struct]) -> list[Fault]:
    """A file of another format or version says only that: its other faults would be noise."""
    hints = _hints(kind)
    for key in ("format", "version"):
        wanted = get_args(hints[key])[0]
        if key not in top:
            return [Fault(pointer(key), f"is missing; expected {json.dumps(wanted)}")]
        found = _plain(top[key])
        if found != wanted or isinstance(found, bool):
            return [Fault(pointer(key), f"is {json.dumps(found)[:80]}; expected {json.dumps(wanted)}")]
    return []


def _plain(raw: msgspec.Raw) -> Any:
    """The value, or its text where it cannot be read (1e999)."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return bytes(raw).decode()


def _malformed(data: bytes, error: Exception) -> str:
    if not data.strip():
        return "is empty"
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 text (byte {error.start})"
    if isinstance(error, json.JSONDecodeError):
        ends = error.pos >= len(data.rstrip()) - 1 or "Unterminated" in error.msg
        hint = "; the file looks truncated" if ends else ""
        return f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}{hint}"
    return f"is not JSON: {error}"


class _Twice(dict[str, Any]):
    keys_twice: tuple[str, ...] = ()


def _refuse_duplicates(data: str, what: str) -> None:
    """JSON lets a later key replace an earlier one in silence; here that is an error (and so is NaN)."""
    twice = False

    def glance(pairs: list[tuple[str, Any]]) -> None:
        nonlocal twice
        if len(pairs) != len({k for k, _ in pairs}):
            twice = True

    def constant(name: str) -> Any:
        raise ProblemError([Fault(_locate(data, name), f"is {name}; numbers must be finite")], what)

    json.loads(data, object_pairs_hook=glance, parse_constant=constant, parse_int=_no_value, parse_float=_no_value)
    if twice:
        raise ProblemError(list(islice(_duplicates(data), MOST_FAULTS)), what)


def _no_value(_: str) -> None:
    """Numbers are not needed to look for duplicate keys."""


def _locate(data: str, constant: str) -> str:
    tree = json.loads(data, parse_constant=lambda name: _Constant(name))
    return next((pointer(*path) for path, leaf in _leaves(tree, ()) if leaf == _Constant(constant)), "")


class _Constant(str):
    __slots__ = ()


def _items(tree: dict[str, Any] | list[Any]) -> Iterable[tuple[str | int, Any]]:
    return tree.items() if isinstance(tree, dict) else enumerate(tree)


def _leaves(tree: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(tree, dict | list):
        for key, value in _items(tree):
            yield from _leaves(value, (*path, key))
    elif isinstance(tree, _Constant):
        yield path, tree


def _duplicates(data: str) -> Iterator[Fault]:
    def keep(pairs: list[tuple[str, Any]]) -> _Twice:
        found = _Twice(pairs)
        if len(found) < len(pairs):
            found.keys_twice = tuple(sorted(k for k, n in Counter(k for k, _ in pairs).items() if n > 1))
        return found

    def walk(tree: Any, path: Path) -> Iterator[Fault]:
        if isinstance(tree, _Twice):
            for key in tree.keys_twice:
                yield Fault(pointer(*path, key), "stands twice in one object; remove or rename one")
        if isinstance(tree, dict | list):
            for step, value in _items(tree):
                yield from walk(value, (*path, step))

    return walk(json.loads(data, object_pairs_hook=keep), ())


def _collect(raw: msgspec.Raw, expected: Any, path: Path) -> Iterator[Fault]:
    """Every fault below one value: descend where the shape is right, let msgspec word the rest."""
    limits = get_args(expected)[1] if get_origin(expected) is Annotated else None
    kind = get_args(expected)[0] if limits is not None else expected
    if isinstance(kind, UnionType):
        members = [t for t in get_args(kind) if t not in (UnsetType, type(None))]
        kind = members[0] if len(members) == 1 else _tagged(raw, members) or expected
        if get_origin(kind) is Annotated:
            yield from _collect(raw, kind, path)
            return
    if _is_struct(kind) and (parts := _parts(raw, dict[str, msgspec.Raw])) is not None:
        yield from _collect_struct(parts, kind, path)
    elif get_origin(kind) is list and (items := _parts(raw, list[msgspec.Raw])) is not None:
        if not items and limits is not None:
            yield Fault(pointer(*path), f"is empty; at least {limits.min_length} needed")
        for i, item in enumerate(items):
            yield from _collect(item, get_args(kind)[0], (*path, i))
    elif get_origin(kind) is dict and (parts := _parts(raw, dict[str, msgspec.Raw])) is not None:
        for key, value in parts.items():
            yield from _collect(value, get_args(kind)[1], (*path, key))
    else:
        yield from _leaf(raw, expected, path)


def _collect_struct(parts: dict[str, msgspec.Raw], kind: type[msgspec.Struct], path: Path) -> Iterator[Fault]:
    hints = _hints(kind)
    fields = {f.encode_name: f for f in _fields(kind)}
    tag_field = kind.__struct_config__.tag_field
    for key, value in parts.items():
        if key in fields:
            yield from _collect(value, hints[fields[key].name], (*path, key))
        elif kind.__struct_config__.forbid_unknown_fields and key != tag_field:
            yield Fault(pointer(*path, key), f"is not a key here; known: {', '.join(fields)}")
    for key, f in fields.items():
        if f.required and key not in parts:
            yield Fault(pointer(*path, key), "is missing")


@cache
def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _tagged(raw: msgspec.Raw, members: list[Any]) -> Any:
    """The member of a tagged union that the value's tag names, or None."""
    parts = _parts(raw, dict[str, msgspec.Raw]) or {}
    for struct in filter(_is_struct, members):
        tag = parts.get(struct.__struct_config__.tag_field)
        if tag is not None and _plain(tag) == struct.__struct_config__.tag:
            return struct
    return None


def _parts(raw: msgspec.Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError):
        return None


_PLAIN = {"`": "", "Expected ": "must be ", ", got ": ", not "}


def _leaf(raw: msgspec.Raw, expected: Any, path: Path) -> Iterator[Fault]:
    try:
        msgspec.json.decode(raw, type=expected)
    except msgspec.DecodeError as error:
        reason = str(error)
        inside: Path = ()
        if (at := re.search(r" - at `(?:key in )?\$(.*)`$", reason)) is not None:
            reason = reason[: at.start()]
            inside = tuple(int(n) for n in re.findall(r"\[(\d+)\]", at.group(1)))
        if (values := get_args(expected)) and get_origin(expected) is Literal:
            reason = f"is {bytes(raw).decode()[:80]}; must be one of {', '.join(json.dumps(v) for v in values)}"
        for old, new in _PLAIN.items():
            reason = reason.replace(old, new)
        yield Fault(pointer(*path, *inside), reason)
    except RecursionError:
        yield Fault(pointer(*path), "is nested too deeply to be read")
