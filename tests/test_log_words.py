"""What logs say where something fails that has a payload in hand."""

from __future__ import annotations

import ast
import inspect
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from botocore.exceptions import ClientError
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage

from alya_django import (
    BatchInput,
    BatchProcessor,
    OutputFormat,
    QueryResult,
    Row,
    batches,
    log_words,
    outputs,
    register_batch_processor,
    register_file_checker,
    register_initializer,
    register_slow_query_processor,
    retention,
    signals,
    slow_queries,
    status_cache,
)
from alya_django.engine.worker import Worker
from alya_django.intake import process
from alya_django.intake.watch import Mapping, Watcher
from alya_django.models import Batch, database
from alya_django.testing import drain
from alya_django.validation import check_id
from tests.local_storage import use_storage
from tests.processors import echo, write_lines

IBAN = "DE89370400440532013000"


class LeakError(Exception):
    """An error that quotes what it was given."""


def leak(*args: Any, **kwargs: Any) -> Any:
    """Raise what quotes a payload."""
    raise LeakError(f"no account {IBAN}") from KeyError(IBAN)


class LeakingStorage(FileSystemStorage):
    """A storage whose errors quote what it was to keep."""

    save = delete = listdir = leak


class Leaking(BatchProcessor):
    """Succeed, and fail when all is done."""

    def do_batch_job(self, row: Row) -> Any:
        return row.input

    mark_done = leak


async def leak_later(row: Row) -> Any:
    leak()


def in_a_row(monkeypatch: Any) -> None:
    _process()


def in_an_atomic_row(monkeypatch: Any) -> None:
    _process(atomic=True)


def in_a_thread(monkeypatch: Any) -> None:
    _process(concurrency=2)


def _process(**options: Any) -> None:
    register_batch_processor("bank", "transfer", leak, **options)
    batches.submit("bank", "transfer", [IBAN])
    drain(raise_errors=False)


def in_a_coroutine(monkeypatch: Any) -> None:
    register_batch_processor("bank", "transfer", leak_later)
    batches.submit("bank", "transfer", [IBAN])
    drain(raise_errors=False)


def in_a_slow_query(monkeypatch: Any) -> None:
    register_slow_query_processor("bank", "total", leak)
    slow_queries.submit("bank", "total", IBAN)
    drain(raise_errors=False)


def in_an_initializer(monkeypatch: Any) -> None:
    register_initializer("bank", leak)
    register_batch_processor("bank", "transfer", echo)
    batches.submit("bank", "transfer", [IBAN])
    drain(raise_errors=False)


def in_the_end_of_an_init_block(monkeypatch: Any) -> None:
    block = type("Block", (), {"close": leak})()
    register_initializer("bank", lambda app: block)
    register_batch_processor("bank", "transfer", echo)
    batches.submit("bank", "transfer", [IBAN])
    drain(raise_errors=False)


def in_mark_done(monkeypatch: Any) -> None:
    register_batch_processor("bank", "transfer", Leaking)
    batches.submit("bank", "transfer", [IBAN])
    drain(raise_errors=False)


def in_an_initializer_before_mark_done(monkeypatch: Any) -> None:
    register_batch_processor("bank", "transfer", Leaking)
    batches.abort(batches.submit("bank", "transfer", [IBAN]))
    register_initializer("bank", leak)
    drain(raise_errors=False)


def in_a_receiver(monkeypatch: Any) -> None:
    signals.batch_finished.connect(leak)
    try:
        register_batch_processor("bank", "transfer", echo)
        batches.submit("bank", "transfer", [IBAN])
        drain()
    finally:
        signals.batch_finished.disconnect(leak)


def in_an_output_format(monkeypatch: Any) -> None:
    register_batch_processor("bank", "write", write_lines, output_formats={"*": OutputFormat(header=leak)})
    batches.submit("bank", "write", [{"a.csv": IBAN}])
    drain(raise_errors=False)


def in_the_storage(monkeypatch: Any) -> None:
    register_batch_processor("bank", "write", write_lines)
    batches.submit("bank", "write", [{"a.csv": IBAN}])
    monkeypatch.setattr(outputs, "save", leak)
    drain(raise_errors=False)


def in_a_file_of_an_answer(monkeypatch: Any) -> None:
    register_slow_query_processor(
        "bank", "total", lambda row: QueryResult.success(output_files={"a.csv": ContentFile(IBAN)})
    )
    slow_queries.submit("bank", "total", IBAN)
    monkeypatch.setattr(outputs, "save_given", leak)
    drain(raise_errors=False)


def in_the_deletion_of_an_object(monkeypatch: Any, settings: Any) -> None:
    use_storage(settings, f"{__name__}.LeakingStorage")
    outputs.delete(["a"])


def in_the_look_at_a_folder(monkeypatch: Any, settings: Any) -> None:
    use_storage(settings, f"{__name__}.LeakingStorage")
    outputs.delete_attempt(uuid4(), uuid4())


def in_the_cache(monkeypatch: Any) -> None:
    status_cache.access("default", leak)


def in_the_pruning(monkeypatch: Any) -> None:
    register_batch_processor("bank", "write", write_lines)
    batches.submit("bank", "write", [{"a.csv": IBAN}])
    drain()
    Batch.objects.update(requested_at="2020-01-01T00:00Z", done_at="2020-01-01T00:00Z")
    monkeypatch.setattr(outputs, "remove", leak)
    retention.prune(timedelta(days=1), rest=lambda seconds: None)


def in_a_checker(monkeypatch: Any) -> None:
    def check(file: Any, file_name: str, context: Any) -> Iterator[BatchInput]:
        yield BatchInput(7, {"iban": IBAN})
        leak()

    register_file_checker("payments", check, app="bank", op="transfer")
    process(file=IBAN, file_name="a.csv", file_type="payments")


def in_what_a_checker_yields(monkeypatch: Any) -> None:
    register_file_checker("payments", lambda file, name, context: [IBAN], app="bank", op="transfer")
    process(file=IBAN, file_name="a.csv", file_type="payments")


def in_a_watched_file(monkeypatch: Any, tmp_path: Path) -> None:
    register_file_checker("payments", leak, app="bank", op="transfer")
    (tmp_path / "a.csv").write_text(IBAN)
    monkeypatch.setattr("alya_django.intake.watch.process", leak)
    Watcher([tmp_path], [Mapping("*.csv", "payments")], settle_seconds=0).run_once()


def in_a_round(monkeypatch: Any) -> None:
    register_batch_processor("bank", "transfer", echo)
    batches.submit("bank", "transfer", [IBAN])
    monkeypatch.setattr(Worker, "round", leak)
    with Worker() as worker:
        monkeypatch.setattr(database().connection, "in_atomic_block", False)
        monkeypatch.setattr("alya_django.engine.wakeup.Wakeup.rest", lambda self, seconds: worker.stop())
        worker.run()
    monkeypatch.undo()


def in_the_goodbye_of_a_worker(monkeypatch: Any) -> None:
    with Worker():
        monkeypatch.setattr("alya_django.engine.record.Recorder.requeue_all", leak)


HAPPENINGS = [happening for name, happening in list(globals().items()) if name.startswith("in_")]


@pytest.fixture
def happen(
    registry: Any, folder: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: Any
) -> Callable[[Callable[..., None]], str]:
    """Let something happen, and return what was logged of it."""
    given = {"settings": settings, "monkeypatch": monkeypatch, "tmp_path": tmp_path}

    def let(happening: Callable[..., None]) -> str:
        caplog.set_level(logging.INFO)
        happening(**{name: given[name] for name in inspect.signature(happening).parameters})
        return str(caplog.text)

    return let


@pytest.mark.django_db
@pytest.mark.sqlite
class LogTests:
    @pytest.mark.rule("SEC-30")
    @pytest.mark.parametrize("happening", HAPPENINGS, ids=lambda happening: happening.__name__)
    def test_say_where_it_happened_and_quote_nothing(self, happening: Any, happen: Any) -> None:
        """The types of the exceptions and the place in the project's code are there, the payload is not."""
        said = happen(happening)
        assert IBAN not in said
        assert "LeakError from KeyError at tests.test_log_words:" in said or "TypeError" in said
        assert "in leak" in said or "TypeError" in said

    @pytest.mark.rule("SEC-30")
    @pytest.mark.parametrize("happening", HAPPENINGS, ids=lambda happening: happening.__name__)
    def test_quote_payloads_where_the_project_wants_it(self, happening: Any, happen: Any, settings: Any) -> None:
        """With LOG_PAYLOADS the texts are there."""
        settings.ALYA = {"LOG_PAYLOADS": True}
        assert IBAN in happen(happening)

    @pytest.mark.rule("SEC-30")
    def test_say_after_which_line_a_checker_failed(self, happen: Any) -> None:
        """Whoever has the file can find the line."""
        assert "A checker failed after line 7" in happen(in_a_checker)

    @pytest.mark.rule("SEC-30")
    def test_say_which_line_failed_first(self, happen: Any) -> None:
        """Whoever may see inputs can look at the row."""
        assert "1 rows failed by an exception, line 1 by LeakError" in happen(in_a_row)

    @pytest.mark.rule("SEC-30")
    def test_are_written_by_nothing_that_goes_its_own_way(self) -> None:
        """No call of a logger in the package has a traceback, or an exception, but through log_words."""
        package = Path(log_words.__file__).parent
        assert [fault for path in sorted(package.rglob("*.py")) for fault in _faults(path)] == []


def _faults(path: Path) -> Iterator[str]:
    """Yield the calls of a logger in a module that log an exception as it is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    caught = {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)}
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and ast.unparse(call.func).startswith("logger.")):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        is_bare = any(isinstance(argument, ast.Name) and argument.id in caught for argument in call.args)
        has_trace = not given.get("exc_info", "log_words.traceback_of(").startswith("log_words.traceback_of(")
        if is_bare or has_trace or ast.unparse(call.func) == "logger.exception":
            yield f"{path.name}:{call.lineno}: {ast.unparse(call)}"


def raised(act: Callable[[], object]) -> BaseException:
    """Return what a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 (whatever it is)
        act()
    return caught.value


class OfErrorTests:
    def test_names_the_chain_and_the_place(self) -> None:
        """What was raised first is named last, as in a traceback read from below."""
        assert re.fullmatch(
            r"LeakError from KeyError at tests\.test_log_words:\d+ in leak", log_words.of_error(raised(leak))
        )

    def test_finds_the_place_in_the_project_below_and_above_libraries(self) -> None:
        """A library that the project calls is not the place, whoever has called the project."""

        def parse() -> None:
            json.loads(IBAN)

        assert re.fullmatch(
            r"JSONDecodeError at tests\.test_log_words:\d+ in OfErrorTests\..*\.parse",
            log_words.of_error(raised(parse)),
        )

    def test_names_a_place_of_its_own_where_the_project_has_none(self) -> None:
        """What no code of the project has raised is Alya's."""
        error = raised(lambda: check_id(IBAN))
        error.__traceback__ = (
            error.__traceback__ and error.__traceback__.tb_next and error.__traceback__.tb_next.tb_next
        )
        assert re.fullmatch(r"InvalidInput at alya_django\.validation:\d+ in check_id", log_words.of_error(error))

    def test_needs_no_place(self) -> None:
        """An exception that was never raised has none."""
        assert log_words.of_error(ValueError(IBAN)) == "ValueError"

    def test_bears_an_endless_chain(self) -> None:
        """Some libraries raise an exception that in the end comes from itself."""
        one, other = ValueError(), KeyError()
        one.__cause__, other.__cause__ = other, one
        assert log_words.of_error(one) == "ValueError from KeyError"

    @pytest.mark.parametrize(
        ("error", "known_as"),
        [
            (ConnectionRefusedError(111, IBAN), "ConnectionRefusedError (ECONNREFUSED)"),
            (OSError(IBAN), "OSError"),
            (psycopg.errors.UniqueViolation(IBAN), "UniqueViolation (23505)"),
            (psycopg.OperationalError(f"connection refused\n{IBAN}"), "OperationalError (connection refused)"),
            (psycopg.ProgrammingError(IBAN), "ProgrammingError"),
            (
                ClientError({"Error": {"Code": "NoSuchBucket", "Message": IBAN}}, "PutObject"),
                "ClientError (NoSuchBucket)",
            ),
            (ClientError({"Error": {"Code": IBAN}}, "PutObject"), "ClientError"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_names_the_code_by_which_a_system_knows_it(self, error: Exception, known_as: str) -> None:
        """A code says more than a type, and quotes nothing; neither do the driver's words of a connection."""
        assert log_words.of_error(error) == known_as

    def test_says_its_text_where_the_project_wants_it(self, settings: Any) -> None:
        """One that has none is only named."""
        settings.ALYA = {"LOG_PAYLOADS": True}
        assert log_words.of_error(ValueError(IBAN)) == f"ValueError: {IBAN}"

        class UnspeakableError(Exception):
            def __str__(self) -> str:
                raise ValueError

        assert log_words.of_error(UnspeakableError()).endswith("UnspeakableError: ")
