"""Of which type a file is, by its path below a watched directory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from alya_django.checkers import checkers
from alya_django.conf import settings
from alya_django.exceptions import InvalidInput

ANY_DEPTH = "**"


class Mapping(NamedTuple):
    """Which files are of a type: those below a watched directory whose path matches the pattern."""

    pattern: str
    file_type: str


class Patterns:
    """
    What is left to be matched below a directory: of each pattern the parts, and the type of its files.

    It is true as long as something below may match.
    """

    def __init__(self, left: Iterable[tuple[tuple[str, ...], str]]) -> None:
        # In order, and each once.
        self._left = tuple(dict.fromkeys(left))

    @classmethod
    def of(cls, mappings: Iterable[Mapping]) -> Patterns:
        """
        Return what mappings ask for; the first that matches a file says its type.

        Raises:
            InvalidInput: A pattern that can match nothing, or a type without a checker.
        """
        return cls([(_parts(pattern, file_type), file_type) for pattern, file_type in mappings])

    def __bool__(self) -> bool:
        return bool(self._left)

    def below(self, name: str) -> Patterns:
        """Return what is left to be matched below a name; nothing is below one that begins with a dot."""
        if name.startswith("."):
            return Patterns(())
        return Patterns((rest, file_type) for parts, file_type in self._left for rest in _after(parts, name))

    def type_here(self) -> str | None:
        """Return the type of a file whose names have all been gone through; None if none matches."""
        return next((file_type for parts, file_type in self._left if not parts), None)

    def type_of(self, parts: Iterable[str]) -> str | None:
        """Return the type of the file that has these names; None if none matches."""
        left = self
        for part in parts:
            left = left.below(part)
        return left.type_here()


def configured_mappings() -> list[Mapping]:
    """
    Return the mappings that the project's settings have.

    Raises:
        InvalidInput: WATCH_TYPES is no list of objects, each with a pattern and a type.
    """
    entries = settings.WATCH_TYPES
    if not isinstance(entries, list | tuple):
        raise InvalidInput(f"ALYA['WATCH_TYPES'] is {entries!r}.")
    return [_configured(entry) for entry in entries]


def _parts(pattern: str, file_type: str) -> tuple[str, ...]:
    if checkers.find(file_type) is None:
        raise InvalidInput(f"there is no checker for {file_type!r}, the type of {pattern!r}.", field="mappings")
    parts = [part for part in str(pattern).split("/") if part not in ("", ".")]
    is_bad = not parts or ".." in parts or any(ANY_DEPTH in part and part != ANY_DEPTH for part in parts)
    if is_bad or any(part.startswith(".") for part in parts) or str(pattern).count("[") > str(pattern).count("]"):
        raise InvalidInput(f"{pattern!r} is no pattern of files below a directory.", field="mappings")
    return (*parts, "*") if parts[-1] == ANY_DEPTH else tuple(parts)


def _after(parts: tuple[str, ...], name: str) -> Iterator[tuple[str, ...]]:
    """Yield what may be left of a pattern's parts when a name is gone through; nothing if it does not match."""
    if parts and parts[0] == ANY_DEPTH:
        yield parts
        yield from _after(parts[1:], name)
    elif parts and fnmatchcase(name, parts[0]):
        yield parts[1:]


def _configured(entry: Any) -> Mapping:
    is_mapping = isinstance(entry, dict) and entry.keys() == {"pattern", "type"}
    if not is_mapping or not all(isinstance(value, str) for value in entry.values()):
        raise InvalidInput(f"ALYA['WATCH_TYPES'] has {entry!r}.")
    return Mapping(entry["pattern"], entry["type"])
