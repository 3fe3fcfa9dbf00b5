"""System checks: what in a project's settings would make Alya fail or lie, found before it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import FileSystemStorage
from django.db import connections, router
from django.utils.module_loading import import_string

from alya_django import outputs, s3_streams
from alya_django.conf import DEFAULTS, settings
from alya_django.db import VENDORS
from alya_django.exceptions import InvalidInput
from alya_django.intake.patterns import configured_mappings
from alya_django.models import Batch, database

READ_COMMITTED = "read committed"
POSTGRESQL_MIN = 150_000
BEATS_PER_TTL = 3
LEAST: dict[str, float] = {
    "CHUNK_ROWS": 1,
    "CHUNK_SECONDS": 0.001,
    "FLUSH_SECONDS": 0,
    "POLL_SECONDS": 0.001,
    "STATUS_CACHE_SECONDS": 1,
    "BATCH_ROWS_MAX": 1,
    "OUTPUT_FILES_MAX": 1,
    "DUPLICATE_DAYS": 0,
    "FILE_BYTES_MAX": 1,
    "UNPACKED_BYTES_MAX": 1,
    "RECORD_CHARS_MAX": 1,
    "COLUMNS_MAX": 1,
    "XLSX_BYTES_MAX": 1,
    "XLSX_CELLS_MAX": 1,
    "XLSX_MEMORY_BYTES_MAX": 200_000_000,
    "XLSX_SECONDS_MAX": 1,
    "UPLOADS_MAX": 1,
    "WATCH_SECONDS": 0.1,
    "WATCH_AGE_SECONDS": 0,
    "MAX_ATTEMPTS": 1,
    "RETRY_SECONDS": 0,
    "TIME_LIMIT_SECONDS": 0.1,
    "HEARTBEAT_SECONDS": 0.1,
    "WORKER_TTL_SECONDS": 0.3,
    "SWEEP_SECONDS": 0,
    "CONFIG_FAILURE_SECONDS": 0,
}
"""The least value of each setting that is a number."""
CALLABLES = frozenset({"ADMIN_SCOPE", "MASK_WITH"})
"""The settings that name something of the project to call."""
WATCHED = frozenset({"WATCH_DIRECTORIES", "WATCH_TYPES"})
"""The settings that say what ``alya_watch`` looks at."""


def register_checks() -> None:
    """Have Django run these checks, those that ask the database only where it is asked for."""
    register(check_settings, "alya_django")
    register(check_aliases, "alya_django")
    register(check_cache, "alya_django", deploy=True)
    register(check_storage, "alya_django", deploy=True)
    register(check_database_settings, "alya_django")
    register(check_database, Tags.database)


def check_settings(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check the keys of ``ALYA``, the types and the ranges of their values."""
    try:
        given = settings.given()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="Write ALYA = {...}, or leave it out.", id="alya_django.E009")]
    found = [*_unknown_keys(given), *_wrong_values(given), *_wrong_callables(given), *_wrong_watch()]
    return found or list(_short_lives())


def check_aliases(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that the cache and the storage that ``ALYA`` names exist."""
    found: list[CheckMessage] = []
    for key, setting, number in (("CACHE", "CACHES", 3), ("STORAGE", "STORAGES", 4)):
        alias, aliases = _name(key), getattr(django_settings, setting)
        if alias is not None and alias not in aliases:
            found.append(
                Error(
                    f"ALYA[{key!r}] is {alias!r}, which is no alias in {setting}.",
                    hint=f"{setting} has: {', '.join(sorted(aliases))}.",
                    id=f"alya_django.E{number:03}",
                )
            )
    return found


def check_cache(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that a worker's news can reach the processes that ask."""
    alias = _name("CACHE")
    backend = django_settings.CACHES.get(alias or "", {}).get("BACKEND", "")
    if not backend.endswith(".LocMemCache"):
        return []
    return [
        Warning(
            f"ALYA['CACHE'] is {alias!r}, a cache in the memory of each process.",
            hint="What one process caches the others do not see: answers stay right, but each asks the database for "
            "itself. Use a cache that all share, such as Redis.",
            id="alya_django.W001",
        )
    ]


def check_storage(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check who could read files from the storage, and what a storage on S3 would cost."""
    if _name("STORAGE") not in django_settings.STORAGES:
        return []
    try:
        storage = outputs.storage()
    except Exception as error:
        # It is the project's, and may fail in any way.
        return [_no_storage(error)]
    if isinstance(storage, FileSystemStorage):
        return list(_served_files(storage))
    if not s3_streams.is_s3_storage(storage):
        return []
    return [*_public_files(storage), *_hungry_copies(storage)]


def check_database_settings(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check what the settings say of the database that holds Alya's tables."""
    connection = connections[router.db_for_write(Batch)]
    options = connection.settings_dict.get("OPTIONS", {})
    if connection.vendor not in VENDORS:
        return [_wrong_database(connection.alias, connection.display_name)]
    if connection.vendor == "sqlite" and str(options.get("transaction_mode")).upper() not in (
        "IMMEDIATE",
        "EXCLUSIVE",
    ):
        return [
            Error(
                f"The SQLite database {connection.alias!r} begins its transactions as readers.",
                hint='Add "transaction_mode": "IMMEDIATE" to its OPTIONS: a transaction that reads before it writes '
                'fails with "database is locked" as soon as somebody else writes.',
                id="alya_django.E007",
            )
        ]
    level = options.get("isolation_level")
    if connection.vendor == "postgresql" and level is not None:
        return _isolation(connection.alias, getattr(level, "name", str(level)).replace("_", " ").lower())
    return []


def check_database(
    app_configs: Sequence[AppConfig] | None = None, databases: Iterable[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check the version of the server and its default isolation level; it connects."""
    alias = router.db_for_write(Batch)
    if alias not in (databases or ()) or connections[alias].vendor not in VENDORS:
        return []
    tables = database()
    version, level = tables.server()
    found = [] if version is None or version >= POSTGRESQL_MIN else [_too_old(tables.alias, version)]
    return found if level is None else [*found, *_isolation(tables.alias, level)]


def _name(key: str) -> str | None:
    """Return the text that a key of ``ALYA`` has; None where it has none, of which ``check_settings`` tells."""
    try:
        value = getattr(settings, key)
    except ImproperlyConfigured:
        return None
    return value if isinstance(value, str) else None


def _unknown_keys(given: dict[str, Any]) -> Iterator[CheckMessage]:
    for key in sorted(map(str, given.keys() - DEFAULTS.keys())):
        nearest = get_close_matches(key.upper(), DEFAULTS, n=1)
        yield Error(
            f"ALYA has no key {key!r}.",
            hint=f"Did you mean {nearest[0]!r}?" if nearest else f"The keys are: {', '.join(sorted(DEFAULTS))}.",
            id="alya_django.E001",
        )


def _wrong_values(given: dict[str, Any]) -> Iterator[CheckMessage]:
    for key in sorted((given.keys() & DEFAULTS.keys()) - CALLABLES - WATCHED):
        value, default = given[key], DEFAULTS[key]
        if isinstance(default, str):
            is_right, wanted = isinstance(value, str), "a string"
        elif isinstance(default, tuple):
            is_right, wanted = _is_list_of_strings(value), "a list of strings"
        elif isinstance(default, bool):
            is_right, wanted = isinstance(value, bool), "True or False"
        else:
            kinds = (int,) if isinstance(default, int) and not key.endswith("_SECONDS") else (int, float)
            is_right = isinstance(value, kinds) and not isinstance(value, bool) and LEAST[key] <= value < float("inf")
            wanted = f"{'a whole number' if kinds == (int,) else 'a number'} of at least {LEAST[key]:g}"
        if not (is_right or (value is None and default is None)):
            yield Error(
                f"ALYA[{key!r}] is {value!r}.",
                hint=f"It must be {wanted}; the default is {default!r}.",
                id="alya_django.E002",
            )


def _is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(isinstance(entry, str) for entry in value)


def _wrong_callables(given: dict[str, Any]) -> Iterator[CheckMessage]:
    for key in sorted(given.keys() & CALLABLES):
        fault = None if given[key] is None else _fault_of_callable(given[key])
        if fault:
            yield Error(
                f"ALYA[{key!r}] is {given[key]!r}: {fault}.",
                hint='Name a function of the project as "package.module.function", or leave it at None.',
                id="alya_django.E010",
            )


def _wrong_watch() -> Iterator[CheckMessage]:
    directories = settings.WATCH_DIRECTORIES
    if not isinstance(directories, list | tuple) or not all(isinstance(entry, str | Path) for entry in directories):
        yield _wrong_watched(f"ALYA['WATCH_DIRECTORIES'] is {directories!r}.", "a list of directories")
    try:
        configured_mappings()
    except InvalidInput as error:
        yield _wrong_watched(f"{error}", 'a list of objects such as {"pattern": "TXN*.csv", "type": "payments"}')


def _wrong_watched(text: str, wanted: str) -> CheckMessage:
    return Error(text, hint=f"It must be {wanted}; the default is empty.", id="alya_django.E011")


def _fault_of_callable(path: Any) -> str:
    if not isinstance(path, str):
        return "that is no dotted path"
    try:
        return "" if callable(import_string(path)) else "it cannot be called"
    except ImportError as error:
        return str(error)
    except Exception as error:
        # Its module is run, and may fail in any way.
        return f"{type(error).__name__}: {error}"


def _short_lives() -> Iterator[CheckMessage]:
    if settings.WORKER_TTL_SECONDS < BEATS_PER_TTL * settings.HEARTBEAT_SECONDS:
        yield Error(
            f"A worker counts as dead after {settings.WORKER_TTL_SECONDS} s and beats every "
            f"{settings.HEARTBEAT_SECONDS} s.",
            hint="Make ALYA['WORKER_TTL_SECONDS'] at least three times ALYA['HEARTBEAT_SECONDS']: a beat may be late.",
            id="alya_django.E008",
        )


def _no_storage(error: Exception) -> CheckMessage:
    return Error(
        f"ALYA['STORAGE'] is {settings.STORAGE!r}, which cannot be made: {type(error).__name__}: {error}",
        hint=f"See what STORAGES[{settings.STORAGE!r}] has under BACKEND and OPTIONS.",
        id="alya_django.E012",
    )


def _served_files(storage: FileSystemStorage) -> Iterator[CheckMessage]:
    root = django_settings.MEDIA_ROOT
    # Django puts the site's own path before an address that is not set.
    is_served = bool(root) and django_settings.MEDIA_URL.strip("/") != ""
    if is_served and Path(storage.location).resolve().is_relative_to(Path(root).resolve()):
        yield Warning(
            f"ALYA['STORAGE'] is {settings.STORAGE!r}, whose files lie in MEDIA_ROOT.",
            hint="Give Alya a storage of its own, with a location that no web server serves: whoever knows or guesses "
            "an address below MEDIA_URL could read output files and received files, without a login.",
            id="alya_django.W004",
        )


def _public_files(storage: Any) -> Iterator[CheckMessage]:
    if str(storage.default_acl or "").startswith("public"):
        yield Warning(
            f"ALYA['STORAGE'] is {settings.STORAGE!r}, where every file is {storage.default_acl}.",
            hint="Leave default_acl out, or give Alya a storage of its own: anybody who has or guesses the "
            "address of an output file could read it.",
            id="alya_django.W002",
        )


def _hungry_copies(storage: Any) -> Iterator[CheckMessage]:
    if storage.transfer_config.use_threads:
        yield Warning(
            f"ALYA['STORAGE'] is {settings.STORAGE!r}, which copies a file with "
            f"{storage.transfer_config.max_concurrency} threads at a time.",
            hint="Set transfer_config to TransferConfig(use_threads=False): the threads hold more than 100 MB of a "
            "large output file in a worker's memory, and save little time.",
            id="alya_django.W003",
        )


def _too_old(alias: str, version: int) -> CheckMessage:
    return _wrong_database(alias, f"PostgreSQL {version // 10_000}")


def _wrong_database(alias: str, what: str) -> CheckMessage:
    return Error(
        f"The database {alias!r}, which holds Alya's tables, is {what}.",
        hint="Use PostgreSQL 15 or later, or SQLite; a database router can put Alya's tables elsewhere.",
        id="alya_django.E005",
    )


def _isolation(alias: str, level: str) -> list[CheckMessage]:
    if level == READ_COMMITTED:
        return []
    return [
        Error(
            f"The database {alias!r} isolates its transactions as {level!r}.",
            hint="Leave it at READ COMMITTED: workers look again in a new statement and rely on seeing what others "
            "have committed meanwhile.",
            id="alya_django.E006",
        )
    ]
