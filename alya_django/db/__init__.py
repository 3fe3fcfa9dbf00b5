"""What differs by database: the rest of Alya writes no vendor's SQL."""

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from alya_django.db.base import (
    ERRCODES_MAX,
    OTHER,
    Charge,
    Claimed,
    Database,
    Listener,
    RowEnding,
    TransactionLeftOpen,
)
from alya_django.db.postgresql import PostgreSQL
from alya_django.db.sqlite import SQLite

__all__ = [
    "ERRCODES_MAX",
    "OTHER",
    "Charge",
    "Claimed",
    "Database",
    "Listener",
    "PostgreSQL",
    "RowEnding",
    "SQLite",
    "TransactionLeftOpen",
    "database",
]

VENDORS: dict[str, type[Database]] = {"postgresql": PostgreSQL, "sqlite": SQLite}


def database(alias: str) -> Database:
    """Return what speaks to the database of an alias."""
    connection = connections[alias]
    if connection.vendor not in VENDORS:
        raise ImproperlyConfigured(f"Alya's tables cannot be in {connection.display_name} ({alias!r}).")
    return VENDORS[connection.vendor](alias)
