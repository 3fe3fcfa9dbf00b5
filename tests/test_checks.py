from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from boto3.s3.transfer import TransferConfig
from django.core.checks import CheckMessage, Error, Tags, Warning, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection, connections
from django.test import override_settings
from hypothesis import example, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from psycopg import IsolationLevel

from alya_django import checks
from alya_django.conf import DEFAULTS
from tests.conftest import IS_SQLITE
from tests.local_storage import use_storage

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

ODD = [object(), int, len, Path("/in"), Decimal("1.5"), timedelta(seconds=1), date(2026, 1, 1), 1j, b"\xff", range(3)]
ODD += [10**400, -(10**400), "\ud800", "tests.", ".", "..", "a\0.b", "default\0"]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(ODD)
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(st.integers() | st.text(max_size=3), max_size=3)
        | st.dictionaries(st.sampled_from(["pattern", "type", ""]), inner, max_size=3)
    ),
    max_leaves=5,
)


def all_found() -> list[CheckMessage]:
    """Run all that Alya checks, before a deployment and with a database."""
    tags = ["alya_django", Tags.database]
    return run_checks(tags=tags, include_deployment_checks=True, databases=["default"])


def assert_named(key: str, found: list[CheckMessage]) -> None:
    """Fail where what keeps commands from starting does not say which key it is about."""
    assert [str(message) for message in found if message.is_serious() and key not in str(message)] == []


class SettingsTests:
    def test_the_defaults_are_right(self, settings) -> None:
        """Neither no setting at all nor every default written out is complained of."""
        assert checks.check_settings() == []
        settings.ALYA = dict(DEFAULTS)
        assert checks.check_settings() == []

    def test_every_number_has_a_least_value(self) -> None:
        """No number is left out of the check."""
        numbers = {key for key, value in DEFAULTS.items() if not isinstance(value, str | bool)}
        assert numbers - checks.CALLABLES - checks.WATCHED - {"MASK_KEYS"} == set(checks.LEAST)

    def test_e001_an_unknown_key_with_one_like_it(self, settings) -> None:
        """A slip of the pen is answered by what was meant."""
        settings.ALYA = {"chunk_row": 5}
        assert checks.check_settings() == [
            Error("ALYA has no key 'chunk_row'.", hint="Did you mean 'CHUNK_ROWS'?", id="alya_django.E001")
        ]

    def test_e001_an_unknown_key_like_no_other(self, settings) -> None:
        """Where nothing is alike the keys are listed."""
        settings.ALYA = {"X": 5}
        (error,) = checks.check_settings()
        assert (error.msg, error.id) == ("ALYA has no key 'X'.", "alya_django.E001")
        assert error.hint == f"The keys are: {', '.join(sorted(DEFAULTS))}."

    @pytest.mark.parametrize(
        ("key", "value", "hint"),
        [
            ("CHUNK_ROWS", 0, "It must be a whole number of at least 1; the default is 500."),
            ("CHUNK_ROWS", 2.5, "It must be a whole number of at least 1; the default is 500."),
            ("CHUNK_ROWS", True, "It must be a whole number of at least 1; the default is 500."),
            ("POLL_SECONDS", 0, "It must be a number of at least 0.001; the default is 1.0."),
            ("POLL_SECONDS", "1", "It must be a number of at least 0.001; the default is 1.0."),
            ("POLL_SECONDS", float("nan"), "It must be a number of at least 0.001; the default is 1.0."),
            ("SWEEP_SECONDS", float("inf"), "It must be a number of at least 0; the default is 60."),
            ("CACHE", None, "It must be a string; the default is 'default'."),
            ("MASK_KEYS", "pin", "It must be a list of strings; the default is ()."),
            ("MASK_KEYS", ["pin", 7], "It must be a list of strings; the default is ()."),
        ],
    )
    def test_e002_a_wrong_type_or_range(self, settings, key, value, hint) -> None:
        """A value that is no number, or out of range, is named with what it must be."""
        settings.ALYA = {key: value}
        (error,) = checks.check_settings()
        assert (error.msg, error.hint, error.id) == (f"ALYA[{key!r}] is {value!r}.", hint, "alya_django.E002")

    def test_e008_a_worker_that_would_die_of_a_late_beat(self, settings) -> None:
        """The time to live must be three beats at least."""
        settings.ALYA = {"WORKER_TTL_SECONDS": 10, "HEARTBEAT_SECONDS": 4}
        assert checks.check_settings() == [
            Error(
                "A worker counts as dead after 10 s and beats every 4 s.",
                hint="Make ALYA['WORKER_TTL_SECONDS'] at least three times ALYA['HEARTBEAT_SECONDS']: "
                "a beat may be late.",
                id="alya_django.E008",
            )
        ]

    @pytest.mark.parametrize(
        ("value", "fault"),
        [
            ("tests.scopes.bank", "No module named 'tests.scopes'"),
            ("tests.settings.SECRET_KEY", "it cannot be called"),
            ("scope", "scope doesn't look like a module path"),
            ("broken_scopes.scope", "ZeroDivisionError: division by zero"),
            (42, "that is no dotted path"),
        ],
    )
    def test_e010_what_cannot_be_called(self, settings, tmp_path, monkeypatch, value, fault) -> None:
        """A setting that names a function of the project names one that is there."""
        tmp_path.joinpath("broken_scopes.py").write_text("1 / 0")
        monkeypatch.syspath_prepend(tmp_path)
        settings.ALYA = {"ADMIN_SCOPE": value}
        (error,) = checks.check_settings()
        assert (error.msg, error.id) == (f"ALYA['ADMIN_SCOPE'] is {value!r}: {fault}.", "alya_django.E010")
        assert error.hint == 'Name a function of the project as "package.module.function", or leave it at None.'

    def test_a_callable_of_the_project_is_right(self, settings) -> None:
        """What can be imported and called is not complained of."""
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.only_bank", "MASK_KEYS": ["pin"]}
        assert checks.check_settings() == []

    @pytest.mark.rule("INF-8")
    @pytest.mark.parametrize(
        ("key", "value", "told", "wanted"),
        [
            ("WATCH_DIRECTORIES", "/in", " is '/in'.", "a list of directories"),
            ("WATCH_DIRECTORIES", [1], " is [1].", "a list of directories"),
            ("WATCH_TYPES", {}, " is {}.", 'a list of objects such as {"pattern": "TXN*.csv", "type": "payments"}'),
            ("WATCH_TYPES", [1], " has 1.", 'a list of objects such as {"pattern": "TXN*.csv", "type": "payments"}'),
            (
                *("WATCH_TYPES", [{"pattern": "*", "type": 1}], " has {'pattern': '*', 'type': 1}."),
                'a list of objects such as {"pattern": "TXN*.csv", "type": "payments"}',
            ),
        ],
    )
    def test_e011_what_cannot_be_watched(self, settings, key, value, told, wanted) -> None:
        """The settings of ``alya_watch`` have a form of their own; whether a directory is there it asks itself."""
        settings.ALYA = {key: value}
        (error,) = checks.check_settings()
        assert (error.msg, error.id) == (f"ALYA[{key!r}]{told}", "alya_django.E011")
        assert error.hint == f"It must be {wanted}; the default is empty."

    def test_e009_no_dict(self, settings) -> None:
        """ALYA itself may be wrong."""
        settings.ALYA = ["CACHE"]
        assert checks.check_settings() == [
            Error("ALYA is a list, not a dict.", hint="Write ALYA = {...}, or leave it out.", id="alya_django.E009")
        ]


@pytest.mark.rule("CHK-1")
class WrongTypesTests:
    @pytest.mark.parametrize(
        "value", [None, [], {}, "\ud800", -1, float("nan"), object()], ids=lambda value: type(value).__name__
    )
    def test_no_key_ends_in_a_traceback(self, value) -> None:
        """The ordinary mistakes, for every key."""
        for key in DEFAULTS:
            with override_settings(ALYA={key: value}):
                assert_named(key, all_found())

    @given(key=st.sampled_from(sorted(DEFAULTS)), value=ANYTHING)
    @effort(max_examples=100, deadline=None)
    def test_no_value_of_a_key_ends_in_a_traceback(self, key, value) -> None:
        """And all others."""
        with override_settings(ALYA={key: value}):
            assert_named(key, all_found())

    @given(value=ANYTHING | st.dictionaries(PLAIN.filter(lambda key: isinstance(key, str | int)), PLAIN, max_size=3))
    @example(value=["CACHE"])
    @example(value={1: 2, None: 3})
    @effort(max_examples=40, deadline=None)
    def test_no_value_of_alya_ends_in_a_traceback(self, value) -> None:
        """What is no dict is said once; the keys of what is one are named."""
        with override_settings(ALYA=value):
            found = [message for message in all_found() if message.is_serious()]
        wanted = ["alya_django.E001"] * len(value) if isinstance(value, dict) else ["alya_django.E009"]
        assert [message.id for message in found] == wanted
        assert all("ALYA" in str(message) for message in found)


class AliasTests:
    def test_e003_a_cache_that_is_not_there(self, settings) -> None:
        """The alias must be one of CACHES."""
        settings.ALYA = {"CACHE": "redis"}
        assert checks.check_aliases() == [
            Error(
                "ALYA['CACHE'] is 'redis', which is no alias in CACHES.",
                hint="CACHES has: default.",
                id="alya_django.E003",
            )
        ]

    def test_e004_a_storage_that_is_not_there(self, settings) -> None:
        """The alias must be one of STORAGES."""
        settings.ALYA = {"STORAGE": "s3"}
        assert checks.check_aliases() == [
            Error(
                "ALYA['STORAGE'] is 's3', which is no alias in STORAGES.",
                hint="STORAGES has: default, staticfiles.",
                id="alya_django.E004",
            )
        ]

    def test_aliases_that_are_there(self) -> None:
        """The defaults exist."""
        assert checks.check_aliases() == []


class CacheTests:
    def test_w001_a_cache_of_each_process(self, settings) -> None:
        """Local memory is fine for a test and worth a word before a deployment."""
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
        assert checks.check_cache() == [
            Warning(
                "ALYA['CACHE'] is 'default', a cache in the memory of each process.",
                hint="What one process caches the others do not see: answers stay right, but each asks the database "
                "for itself. Use a cache that all share, such as Redis.",
                id="alya_django.W001",
            )
        ]

    def test_a_cache_that_all_share(self, settings) -> None:
        """Redis is not complained of."""
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "x"}}
        assert checks.check_cache() == []

    def test_is_asked_before_a_deployment_only(self) -> None:
        """An everyday ``check`` says nothing of it."""
        everyday = run_checks(tags=["alya_django"])
        deployment = run_checks(tags=["alya_django"], include_deployment_checks=True)
        assert everyday == []
        assert [message.id for message in deployment] == ["alya_django.W001"]


def on_s3(settings, **options) -> None:
    """Let the storage be one on S3, which is not asked for anything."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {"bucket_name": "b", **options}},
    }


class StorageTests:
    def test_w002_files_for_everybody(self, settings) -> None:
        """A canned ACL that lets anybody read is worth a word."""
        on_s3(settings, default_acl="public-read", transfer_config=TransferConfig(use_threads=False))
        assert checks.check_storage() == [
            Warning(
                "ALYA['STORAGE'] is 'default', where every file is public-read.",
                hint="Leave default_acl out, or give Alya a storage of its own: anybody who has or guesses the "
                "address of an output file could read it.",
                id="alya_django.W002",
            )
        ]

    def test_w003_copies_that_fill_the_memory(self, settings) -> None:
        """The storage's default copies with ten threads."""
        on_s3(settings)
        assert checks.check_storage() == [
            Warning(
                "ALYA['STORAGE'] is 'default', which copies a file with 10 threads at a time.",
                hint="Set transfer_config to TransferConfig(use_threads=False): the threads hold more than 100 MB of "
                "a large output file in a worker's memory, and save little time.",
                id="alya_django.W003",
            )
        ]

    @pytest.mark.rule("SEC-5")
    @pytest.mark.parametrize(
        ("location", "media_url", "found"),
        [
            (None, "media/", ["alya_django.W004"]),
            ("media", "/media/", ["alya_django.W004"]),
            ("media/alya", "https://static.example.com/media/", ["alya_django.W004"]),
            ("link", "media/", ["alya_django.W004"]),
            ("media/../files", "media/", []),
            ("media2", "media/", []),
            ("media/alya", "", []),
        ],
    )
    def test_w004_files_that_the_web_server_serves(self, settings, tmp_path, location, media_url, found) -> None:
        """A directory in MEDIA_ROOT, by whatever path, is warned of where that is served."""
        (tmp_path / "media").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "media")
        settings.MEDIA_ROOT, settings.MEDIA_URL = tmp_path / "media", media_url
        options = {} if location is None else {"location": tmp_path / location}
        use_storage(settings, "django.core.files.storage.FileSystemStorage", **options)
        assert [message.id for message in checks.check_storage()] == found

    def test_nothing_is_said_of_a_storage_of_another_kind(self, settings) -> None:
        """Only of local directories and of S3 is anything known."""
        use_storage(settings, "django.core.files.storage.InMemoryStorage")
        assert checks.check_storage() == []

    @pytest.mark.rule("CHK-1")
    @pytest.mark.parametrize(
        ("storage", "fault"),
        [
            ({"BACKEND": "nowhere.Storage"}, "InvalidStorageError: Could not find backend 'nowhere.Storage'"),
            ({"OPTIONS": {}}, "KeyError: 'BACKEND'"),
            ({"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"place": "x"}}, "TypeError: "),
        ],
    )
    def test_e012_a_storage_that_cannot_be_made(self, settings, storage, fault) -> None:
        """A slip in STORAGES is told as such."""
        settings.STORAGES = {**settings.STORAGES, "default": storage}
        (error,) = checks.check_storage()
        assert error.msg.startswith(f"ALYA['STORAGE'] is 'default', which cannot be made: {fault}")
        assert (error.id, error.hint) == (
            "alya_django.E012",
            "See what STORAGES['default'] has under BACKEND and OPTIONS.",
        )

    def test_a_storage_as_it_should_be(self, settings) -> None:
        """Neither a local directory nor S3 with care is complained of, nor one that is not there."""
        assert checks.check_storage() == []
        on_s3(settings, transfer_config=TransferConfig(use_threads=False))
        assert checks.check_storage() == []
        settings.ALYA = {"STORAGE": "nowhere"}
        assert checks.check_storage() == []


@pytest.fixture
def database_settings(monkeypatch):
    """Change what Django knows of the database, for a test."""

    def change(**values) -> None:
        for name, value in values.items():
            monkeypatch.setitem(connection.settings_dict, name, value)

    return change


class DatabaseTests:
    def test_the_test_database_is_right(self) -> None:
        """PostgreSQL as it comes, and SQLite with IMMEDIATE, are what Alya wants."""
        assert checks.check_database_settings() == []
        assert checks.check_database(databases=["default"]) == []

    def test_e005_another_database(self, monkeypatch) -> None:
        """A database that Alya does not speak is refused."""
        monkeypatch.setattr(connection, "vendor", "oracle")
        monkeypatch.setattr(connection, "display_name", "Oracle")
        (error,) = checks.check_database_settings()
        assert error == Error(
            "The database 'default', which holds Alya's tables, is Oracle.",
            hint="Use PostgreSQL 15 or later, or SQLite; a database router can put Alya's tables elsewhere.",
            id="alya_django.E005",
        )

    def test_e005_a_postgresql_of_the_past(self, monkeypatch) -> None:
        """The server is asked for its version."""
        monkeypatch.setattr("alya_django.db.sqlite.SQLite.server", lambda self: (140_005, "read committed"))
        monkeypatch.setattr("alya_django.db.postgresql.PostgreSQL.server", lambda self: (140_005, "read committed"))
        (error,) = checks.check_database(databases=["default"])
        assert error.msg == "The database 'default', which holds Alya's tables, is PostgreSQL 14."
        assert error.id == "alya_django.E005"

    def test_e007_sqlite_that_begins_as_a_reader(self, database_settings, monkeypatch) -> None:
        """SQLite's default mode cannot wait for a writer."""
        monkeypatch.setattr(connection, "vendor", "sqlite")
        database_settings(OPTIONS={})
        assert checks.check_database_settings() == [
            Error(
                "The SQLite database 'default' begins its transactions as readers.",
                hint='Add "transaction_mode": "IMMEDIATE" to its OPTIONS: a transaction that reads before it writes '
                'fails with "database is locked" as soon as somebody else writes.',
                id="alya_django.E007",
            )
        ]

    def test_nothing_is_asked_of_a_database_that_is_not_checked(self, django_assert_num_queries) -> None:
        """``check`` without ``--database`` opens no connection."""
        with django_assert_num_queries(0):
            assert checks.check_database() == []


ISOLATION_HINT = (
    "Leave it at READ COMMITTED: workers look again in a new statement and rely on seeing what others have committed "
    "meanwhile."
)


if not IS_SQLITE:

    class IsolationTests:
        def test_e006_a_level_in_the_settings(self, database_settings) -> None:
            """Django's option is read without a connection."""
            database_settings(OPTIONS={"isolation_level": IsolationLevel.SERIALIZABLE})
            assert checks.check_database_settings() == [
                Error(
                    "The database 'default' isolates its transactions as 'serializable'.",
                    hint=ISOLATION_HINT,
                    id="alya_django.E006",
                )
            ]
            database_settings(OPTIONS={"isolation_level": IsolationLevel.READ_COMMITTED})
            assert checks.check_database_settings() == []

    @pytest.mark.django_db(transaction=True)
    class ServerTests:
        def test_e006_a_level_of_the_servers(self) -> None:
            """The server's own default may be another one."""
            with connection.cursor() as cursor:
                cursor.execute("SET default_transaction_isolation = 'repeatable read'")
            try:
                assert checks.check_database(databases=["default"]) == [
                    Error(
                        "The database 'default' isolates its transactions as 'repeatable read'.",
                        hint=ISOLATION_HINT,
                        id="alya_django.E006",
                    )
                ]
            finally:
                connections.close_all()

        def test_a_worker_does_not_start(self) -> None:
            """``alya_worker`` asks the server before its first claim."""
            with connection.cursor() as cursor:
                cursor.execute("SET default_transaction_isolation = 'repeatable read'")
            try:
                with pytest.raises(SystemCheckError, match=r"alya_django\.E006"):
                    call_command("alya_worker", "--once")
            finally:
                connections.close_all()


class WorkerTests:
    def test_a_worker_does_not_start_on_an_error(self, settings) -> None:
        """What Django's own checks find ends the command too."""
        settings.ALYA = {"CHUNK_ROWS": 0}
        with pytest.raises(SystemCheckError, match=r"alya_django\.E002"):
            call_command("alya_worker", "--once", skip_checks=False)
