"""Which checker reads the files of a type. No models here: it is filled in a project's ``AppConfig.ready()``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, overload

from alya_django.control_totals import ControlTotals
from alya_django.exceptions import AlreadyRegistered, AlyaError, InvalidInput
from alya_django.processors import BatchInput
from alya_django.validation import JSON, check_text, fold_app, fold_name

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise


@dataclass(frozen=True, slots=True)
class FaultyLine:
    """A line of a file that becomes no row, and the reason, in words for who sent the file."""

    line: int
    reason: str


class BadFile(AlyaError):
    """Raise it in a checker to refuse a file as a whole; ``reason`` is for who sent it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Route:
    """
    The app and op whose processor gets the rows of a file.

    A checker that is registered with several ``routes`` yields one of them, once and before the first row.

    Raises:
        InvalidInput: A name is no name, or the app is Alya's own.
    """

    app: str
    op: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "app", fold_app(self.app))
        object.__setattr__(self, "op", fold_name(self.op, "op"))

    def __str__(self) -> str:
        return f"{self.app}/{self.op}"


Line = BatchInput | FaultyLine
Yielded = Line | Route | ControlTotals
Check = Callable[[BinaryIO, str, dict[str, JSON]], Iterable[Yielded]]
UniqueBy = tuple[str, ...] | Callable[[JSON], Any]
AnyCheck = TypeVar("AnyCheck", bound=Check)


@dataclass(frozen=True, slots=True)
class FileChecker:
    """A checker, the type of files it reads, where their rows go, and whether people may upload them in the admin."""

    file_type: str
    routes: tuple[Route, ...]
    check: Check
    unique_by: UniqueBy | None = None
    totals: tuple[str, ...] = ()
    upload: bool = False
    label: str | StrPromise = ""
    help_text: str | StrPromise = ""

    @property
    def apps(self) -> frozenset[str]:
        """The apps that a file of the type may be for."""
        return frozenset(route.app for route in self.routes)


class CheckerRegistry:
    """
    The checkers of this process.

    ``file_type in checkers`` tells whether one is registered; iteration yields them in the order of types. Reading
    takes no lock: every registration replaces the whole table.
    """

    def __init__(self) -> None:
        self._checkers: dict[str, FileChecker] = {}
        self._writing = threading.Lock()

    def register(self, checker: FileChecker) -> None:
        """Register a checker for its type; the same once more changes nothing."""
        with self._writing:
            earlier = self._checkers.get(checker.file_type)
            if earlier is None:
                self._checkers = {**self._checkers, checker.file_type: checker}
            elif earlier != checker:
                raise AlreadyRegistered(
                    f"There is a checker for the file type {checker.file_type!r} already.",
                    app=checker.routes[0].app,
                    op=checker.routes[0].op,
                )

    def find(self, file_type: str) -> FileChecker | None:
        """Return the checker of a type."""
        return self._checkers.get(file_type)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Be empty for a while; for tests."""
        kept, self._checkers = self._checkers, {}
        try:
            yield
        finally:
            self._checkers = kept

    def __contains__(self, file_type: object) -> bool:
        return file_type in self._checkers

    def __iter__(self) -> Iterator[FileChecker]:
        return iter(sorted(self._checkers.values(), key=lambda checker: checker.file_type))

    def __len__(self) -> int:
        return len(self._checkers)

    def __repr__(self) -> str:
        entries = (f"{checker.file_type} ({', '.join(map(str, checker.routes))})" for checker in self)
        return f"<CheckerRegistry: {', '.join(entries) or 'empty'}>"


checkers = CheckerRegistry()


@overload
def register_file_checker(
    file_type: str,
    check: AnyCheck,
    *,
    app: str | None = None,
    op: str | None = None,
    routes: Route | Sequence[Route] | None = None,
    unique_by: str | Sequence[str] | Callable[[JSON], Any] | None = None,
    totals: str | Sequence[str] | None = None,
    upload: bool = False,
    label: str | StrPromise = "",
    help_text: str | StrPromise = "",
) -> AnyCheck: ...
@overload
def register_file_checker(
    file_type: str,
    check: None = None,
    *,
    app: str | None = None,
    op: str | None = None,
    routes: Route | Sequence[Route] | None = None,
    unique_by: str | Sequence[str] | Callable[[JSON], Any] | None = None,
    totals: str | Sequence[str] | None = None,
    upload: bool = False,
    label: str | StrPromise = "",
    help_text: str | StrPromise = "",
) -> Callable[[AnyCheck], AnyCheck]: ...
def register_file_checker(
    file_type: str,
    check: Any = None,
    *,
    app: str | None = None,
    op: str | None = None,
    routes: Any = None,
    unique_by: Any = None,
    totals: Any = None,
    upload: bool = False,
    label: str | StrPromise = "",
    help_text: str | StrPromise = "",
) -> Any:
    """
    Register what reads the files of a type; without ``check``, return a decorator.

    Args:
        check: A function of the file, opened to be read as bytes, its name and the context. It yields a BatchInput
            with the number that the line has in the file, or a FaultyLine, and raises BadFile to refuse the whole.
            Once it may yield the ControlTotals that the file declares.
            What it leaves in the context, a copy of the caller's, is the batch's.
        app, op: Whose processor gets the rows.
        routes: Instead of both, those among which ``check`` chooses by what the file says: it yields one, once and
            before the first row. What corrects a batch goes where that has gone.
        unique_by: What makes a row unique in the app and op: the names of fields of its input, or a function of the
            input that returns a value or several. A line whose key a row of this file has, or one of a file received
            in the last DUPLICATE_DAYS that has not failed, is faulty. One without any of the values is not compared.
        totals: The fields of the input that are added up, to be compared with the sums that the file declares. A line
            in which one of them is no amount, such as ``"12.50"``, is faulty.
        upload: Let people upload files of this type in the admin. ``check`` then runs in the web process too, on the
            beginning of a file, to show what it makes of it, and with an empty context.
        label: What people are shown instead of the type's name.
        help_text: What they should know of such files.

    Raises:
        AlreadyRegistered: The type has another checker, or this one with other arguments.
        InvalidInput: A name is no name, there is neither an app and op nor a route, or ``check`` cannot be called.

    Source: Alya's RegisterFileChk.
    """

    def decorate(source: Any) -> Any:
        checkers.register(
            FileChecker(
                _checked_type(file_type),
                _routes(app, op, routes),
                _checked_check(source),
                _unique_by(unique_by),
                () if totals is None else _field_names(totals, "totals"),
                upload=_checked_upload(upload),
                label=label,
                help_text=help_text,
            )
        )
        return source

    return decorate if check is None else decorate(check)


def _checked_type(file_type: str) -> str:
    if not check_text(file_type, "file_type"):
        raise InvalidInput("is empty.", field="file_type")
    return file_type


def _routes(app: Any, op: Any, routes: Any) -> tuple[Route, ...]:
    if routes is None:
        return (Route(app, op),)
    if app is not None or op is not None:
        raise InvalidInput("go instead of app and op, not with them.", field="routes")
    given = (routes,) if isinstance(routes, Route) else tuple(routes) if isinstance(routes, list | tuple) else ()
    if not given or not all(isinstance(route, Route) for route in given) or len(set(given)) < len(given):
        raise InvalidInput(f"must be different Routes, at least one, not {routes!r}.", field="routes")
    return given


def _checked_check(check: Any) -> Check:
    if not callable(check):
        raise InvalidInput(f"{check!r} cannot be called.", field="check")
    function: Check = check
    return function


def _checked_upload(upload: Any) -> bool:
    if not isinstance(upload, bool):
        raise InvalidInput(f"must be True or False, not {upload!r}.", field="upload")
    return upload


def _unique_by(given: Any) -> UniqueBy | None:
    if given is None:
        return None
    function: Callable[[JSON], Any] | None = given if callable(given) else None
    return function or _field_names(given, "unique_by")


def _field_names(given: Any, argument: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidInput(f"must name fields of the input, not {given!r}.", field=argument)
    return names
