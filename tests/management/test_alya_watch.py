from __future__ import annotations

import signal

import pytest

from alya_django.intake import watch
from alya_django.models import BatchFile
from tests.intake.files import CONTENT, register
from tests.management.operators import run

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]


@pytest.fixture(autouse=True)
def _signals_and_haste(monkeypatch):
    """Leave this process its signals, and let no look wait."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(watch, "_pause", lambda stopping, seconds: None)
    monkeypatch.setattr(
        watch.Watcher.__init__, "__kwdefaults__", {**watch.Watcher.__init__.__kwdefaults__, "settle_seconds": 0}
    )
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def directory(tmp_path):
    """A directory with a file in it, and a checker."""
    register()
    path = tmp_path / "in"
    path.mkdir()
    (path / "TXN1.csv").write_bytes(CONTENT)
    return path


class AlyaWatchTests:
    @pytest.mark.rule("INF-6")
    def test_receives_once_what_the_settings_say(self, directory, settings) -> None:
        """A line for each file."""
        settings.ALYA = {
            "WATCH_DIRECTORIES": [directory],
            "WATCH_TYPES": [{"pattern": "*.csv", "type": "txn"}],
            "WATCH_AGE_SECONDS": 0,
        }
        ending = run("alya_watch", "--once")
        batch_id = BatchFile.objects.get().batch_id
        assert ending == (0, f"{directory}/TXN1.csv (txn): batch {batch_id}, 2 rows, 1 faulty lines\n", "")

    def test_arguments_go_before_the_settings(self, directory, settings) -> None:
        """Other directories, another pattern first, another age."""
        settings.ALYA = {"WATCH_DIRECTORIES": ["/none"], "WATCH_AGE_SECONDS": 3_600}
        arguments = (str(directory), "--match", "TXN*.csv=txn", "--once", "--age", "0", "--json")
        (told,) = run("alya_watch", *arguments).objects
        assert (told["path"], told["type"], told["nrows"]) == (f"{directory}/TXN1.csv", "txn", 2)

    def test_says_why_a_file_was_rejected(self, directory) -> None:
        """That is no failure of the command."""
        (directory / "TXN1.csv").write_bytes(b"")
        ending = run("alya_watch", str(directory), "--match", "*.csv=txn", "--once", "--age", "0")
        assert ending == (0, f"{directory}/TXN1.csv (txn): rejected: The file is empty.\n", "")

    @pytest.mark.rule("SEC-34")
    @pytest.mark.parametrize("alya", [{}, {"MASK_KEYS": ["iban"]}, {"MASK_KEYS": ["iban"], "LOG_PAYLOADS": True}])
    def test_says_why_unless_that_may_quote_what_is_masked(self, alya, directory, settings) -> None:
        """In words and as JSON: a daemon's output is a log."""
        settings.ALYA = alya
        told = ""
        for option in ((), ("--json",)):
            (directory / "TXN1.csv").write_bytes(b"")
            told += run("alya_watch", str(directory), "--match", "*.csv=txn", "--once", "--age", "0", *option).out
        (reason,) = set(BatchFile.objects.values_list("error_message", flat=True))
        assert told.count(reason) == (0 if alya == {"MASK_KEYS": ["iban"]} else 2)

    @pytest.mark.rule("INF-10")
    def test_ends_with_1_where_something_failed(self, directory, monkeypatch) -> None:
        """What is left is told of in the log."""
        monkeypatch.setattr(watch, "process", lambda **options: 1 / 0)
        ending = run("alya_watch", str(directory), "--match", "*.csv=txn", "--once", "--age", "0")
        assert ending == (1, "", "1 failures; see the log.")

    @pytest.mark.rule("INF-8")
    def test_names_a_wrong_argument(self, directory) -> None:
        """Before it looks anywhere."""
        assert run("alya_watch", "/none", "--match", "*.csv=txn") == (
            2,
            "",
            "directories: /none cannot be watched: No such file or directory.",
        )
        assert run("alya_watch").complaint == "directories: there is none to watch."

    @pytest.mark.rule("INF-6")
    def test_a_signal_ends_it_after_the_file_in_hand(self, directory, monkeypatch) -> None:
        """It has said what it watches; after the first signal the second would end it at once."""
        process = watch.process

        def be_stopped(**options):
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            return process(**options)

        monkeypatch.setattr(watch, "process", be_stopped)
        arguments = (str(directory), "--match", "*.csv=txn", "--age", "0", "--seconds", "0.1")
        ending = run("alya_watch", *arguments)
        assert (ending.code, len(ending.out.splitlines())) == (0, 2)
        assert ending.out.startswith(f"Watches {directory}.\n")
