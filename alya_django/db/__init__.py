"""What differs by database: the rest of Alya writes no vendor's SQL."""

from django.db import connections

from alya_django.db.base import Database, RowEnding
from alya_django.db.postgresql import PostgreSQL

__all__ = ["Database", "PostgreSQL", "RowEnding", "database"]


def database(alias: str) -> Database:
    """Return what speaks to the database of an alias."""
    vendor = PostgreSQL if connections[alias].vendor == "postgresql" else Database
    return vendor(alias)
