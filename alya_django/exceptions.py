"""What can go wrong when user code calls Alya; every message names what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from alya_django.answers import Summary
    from alya_django.status import Kind, Status


class AlyaError(Exception):
    """The base of every error that Alya raises on purpose."""


class InvalidInput(AlyaError, ValueError):
    """
    A value cannot be stored or used.

    ``line`` is the row's number where a row is at fault, ``field`` the argument or the path inside the value.
    """

    def __init__(self, message: str, *, line: int | None = None, field: str = "") -> None:
        self.line = line
        self.field = field
        place = [f"line {line}"] if line is not None else []
        if field:
            place.append(field)
        super().__init__(": ".join([*place, message]))


class NotFound(AlyaError, LookupError):
    """There is no such batch, slow query, line or output file."""


class WrongType(AlyaError):
    """The id of a slow query was given to a verb of batches, or the reverse."""

    def __init__(self, batch_id: UUID, kind: Kind) -> None:
        super().__init__(f"{batch_id} is a {kind.label}.")


class InvalidState(AlyaError):
    """The batch is in a state that does not allow this verb; ``status`` says which."""

    def __init__(self, message: str, *, status: Status) -> None:
        self.status = status
        super().__init__(message)


class AlreadyDone(InvalidState):
    """The batch has ended, or all its rows have; ``summary`` says how."""

    def __init__(self, message: str, *, summary: Summary) -> None:
        self.summary = summary
        super().__init__(message, status=summary.status)


class AlreadyRegistered(AlyaError):
    """The app has an initializer already, or the app and op a processor."""

    def __init__(self, message: str, *, app: str, op: str | None = None) -> None:
        self.app = app
        self.op = op
        super().__init__(message)


class FormatFailed(AlyaError):
    """The header, the trailer or an amount of an output file could not be made: its OutputFormat has raised."""
