from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from alya_django import (
    AlreadyRegistered,
    BatchProcessor,
    Initializer,
    InvalidInput,
    RowResult,
    SlowQueryProcessor,
    Status,
    batches,
    register_batch_processor,
    register_initializer,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.status import Kind
from alya_django.testing import drain, isolated_registry
from tests.invariants import check_invariants
from tests.processors import CountingInitializer, Recording, RecordingQuery, broken, echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class Doubling(BatchProcessor):
    """Double the input."""

    def do_batch_job(self, row):
        return row.input * 2


class Duck:
    """Double the input, without inheriting anything."""

    def do_batch_job(self, row):
        return row.input * 2


class Needy(BatchProcessor):
    """A processor that cannot be made without an argument."""

    def __init__(self, url: str) -> None:
        self.url = url

    def do_batch_job(self, row):
        return self.url


def results(batch_id) -> list[Any]:
    return [row.result for row in batches.result(batch_id).rows]


class WorkerIdentityTests:
    @pytest.mark.rule("REG-1")
    def test_is_unique_and_tells_the_host(self, registry):
        """Two workers of one process have different names, which begin with the host's and fit the column."""
        register_batch_processor("bank", "echo", echo)
        names = []
        for _ in range(2):
            batch_id = batches.submit("bank", "echo", [1])
            drain()
            names.append(batches.line(batch_id, 1).done_by)
        assert len(set(names)) == 2
        assert all(name.startswith(socket.gethostname()[:200]) and len(name) <= 255 for name in names)
        check_invariants()


class RegisterInitializerTests:
    @pytest.mark.rule("REG-2")
    def test_refuses_a_second_one_for_an_app(self, registry):
        """An app has one initializer, whatever the case of its name."""
        register_initializer("bank", CountingInitializer())
        with pytest.raises(AlreadyRegistered) as caught:
            register_initializer("Bank", CountingInitializer())
        assert str(caught.value) == "There is an initializer for app 'bank' already."
        assert (caught.value.app, caught.value.op) == ("bank", None)

    @pytest.mark.rule("REG-2")
    def test_takes_the_same_one_again(self, registry):
        """The same instance, class or function once more changes nothing."""
        instance = CountingInitializer()
        for initializer, app in ((instance, "a"), (CountingInitializer, "b"), (lambda app: app, "c")):
            register_initializer(app, initializer)
            register_initializer(app, initializer)
        registry.make_init_block("a")
        assert instance.calls == 1

    @pytest.mark.rule("REG-4")
    def test_takes_the_same_one_for_another_app(self, registry):
        """Each app has its own, which may be the same."""
        initializer = CountingInitializer()
        register_initializer("bank", initializer)
        register_initializer("flights", initializer)
        for app in ("bank", "flights"):
            registry.make_init_block(app)
        assert initializer.calls == 2

    @pytest.mark.parametrize("order", [("initializer", "processor"), ("processor", "initializer")], ids="-then-".join)
    def test_may_come_before_or_after_the_processors(self, registry, order):
        """The order of registrations does not matter."""
        initializer = CountingInitializer()
        register = {
            "initializer": lambda: register_initializer("bank", initializer),
            "processor": lambda: register_batch_processor("bank", "echo", echo),
        }
        for what in order:
            register[what]()
        batches.submit("bank", "echo", [1])
        assert drain() == 1
        assert initializer.calls == 1
        check_invariants()

    def test_takes_a_callable(self, registry):
        """A function of the app's name makes the block."""
        register_initializer("bank", lambda app: f"block of {app}")
        register_batch_processor("bank", "block", lambda row: row.init_block)
        batch_id = batches.submit("bank", "block", [1])
        drain()
        assert results(batch_id) == ["block of bank"]
        check_invariants()

    @pytest.mark.rule("REG-6")
    @pytest.mark.parametrize("initializer", [None, "init", 7, object()])
    def test_refuses_what_makes_no_block(self, registry, initializer):
        """What has no init(app) and cannot be called is refused at once."""
        with pytest.raises(InvalidInput) as caught:
            register_initializer("bank", initializer)
        assert str(caught.value) == f"{initializer!r} has no method init(app) and cannot be called."

    @pytest.mark.rule("REG-6")
    def test_refuses_a_class_that_does_not_say_how(self, registry):
        """An Initializer that does not override init is refused at once, as a processor is."""

        class Lazy(Initializer):
            pass

        with pytest.raises(InvalidInput) as caught:
            register_initializer("bank", Lazy)
        assert str(caught.value) == f"{Lazy!r} has no method init(app) and cannot be called."

    def test_refuses_a_class_that_needs_arguments(self, registry):
        """A class that cannot be made without arguments is refused with the way out, as a processor's is."""

        class NeedyInitializer(Initializer):
            def __init__(self, url: str) -> None:
                self.url = url

            def init(self, app: str) -> str:
                return self.url

        with pytest.raises(InvalidInput) as caught:
            register_initializer("bank", NeedyInitializer)
        assert str(caught.value).startswith(f"{NeedyInitializer!r} cannot be made without arguments (")
        assert str(caught.value).endswith("); register an instance.")

    def test_refuses_a_bad_name(self, registry):
        """The app is checked like every name."""
        with pytest.raises(InvalidInput) as caught:
            register_initializer("no name", CountingInitializer())
        assert caught.value.field == "app"


class RegisterProcessorTests:
    @pytest.mark.parametrize("processor", [Doubling, Doubling(), Duck, Duck(), lambda row: row.input * 2])
    def test_takes_a_class_an_instance_or_a_function(self, registry, processor):
        """Whatever can do a row's job is a processor, and is handed back."""
        assert register_batch_processor("bank", "double", processor) is processor
        batch_id = batches.submit("bank", "double", [1, 2])
        assert drain() == 2
        assert results(batch_id) == [2, 4]
        check_invariants()

    def test_takes_an_async_function(self, registry):
        """A processor may be an async function."""

        @register_batch_processor("bank", "double")
        async def double(row):
            return row.input * 2

        batch_id = batches.submit("bank", "double", [21])
        drain()
        assert results(batch_id) == [42]
        check_invariants()

    def test_is_a_decorator_without_a_processor(self, registry):
        """Given names alone it decorates a function or a class, which stays what it was."""

        @register_batch_processor("bank", "double", chunk_rows=2)
        def double(row):
            return row.input * 2

        @register_slow_query_processor("bank", "double")
        class Query(SlowQueryProcessor):
            def do_slow_query(self, row):
                return row.input * 2

        assert double.__name__ == "double"
        assert isinstance(Query, type)
        assert [(entry.kind, entry.op) for entry in registry] == [(Kind.BATCH, "double"), (Kind.SLOW_QUERY, "double")]

    @pytest.mark.rule("REG-3")
    def test_refuses_a_second_batch_processor(self, registry):
        """An (app, op) has one batch processor, whatever the case of the names."""
        register_batch_processor("bank", "transfer", echo)
        with pytest.raises(AlreadyRegistered) as caught:
            register_batch_processor("BANK", "Transfer", broken)
        assert str(caught.value) == "There is a batch processor for app 'bank' and op 'transfer' already."
        assert (caught.value.app, caught.value.op) == ("bank", "transfer")

    @pytest.mark.rule("REG-3")
    def test_refuses_a_second_slow_query_processor(self, registry):
        """An (app, op) has one slow query processor, whatever the case of the names."""
        register_slow_query_processor("bank", "Report", echo)
        with pytest.raises(AlreadyRegistered) as caught:
            register_slow_query_processor("Bank", "report", broken)
        assert str(caught.value) == "There is a slow query processor for app 'bank' and op 'report' already."
        assert (caught.value.app, caught.value.op) == ("bank", "report")

    @pytest.mark.rule("REG-3")
    def test_leaves_the_first_one_where_it_refuses_a_second(self, registry):
        """A refused registration changes nothing."""
        register_batch_processor("bank", "echo", echo)
        with pytest.raises(AlreadyRegistered):
            register_batch_processor("bank", "echo", broken)
        batch_id = batches.submit("bank", "echo", [1])
        drain()
        assert batches.status(batch_id).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("REG-3")
    def test_takes_the_same_one_again(self, registry):
        """The same function or class once more changes nothing."""
        for processor, op in ((echo, "function"), (Doubling, "class")):
            register_batch_processor("bank", op, processor)
            register_batch_processor("Bank", op, processor)
        assert len(registry) == 2

    @pytest.mark.rule("REG-4")
    def test_takes_another_op_and_another_app(self, registry):
        """The pair counts: the same op of another app, and another op of the same app, are others."""
        register_batch_processor("bank", "echo", echo)
        register_batch_processor("bank", "double", Doubling)
        register_batch_processor("flights", "echo", broken)
        assert [(entry.app, entry.op) for entry in registry] == [
            ("bank", "double"),
            ("bank", "echo"),
            ("flights", "echo"),
        ]

    @pytest.mark.rule("REG-5")
    def test_keeps_batches_and_slow_queries_apart(self, registry):
        """One pair may have a batch processor and a slow query processor, and each gets its own kind."""
        rows, queries = Recording(), RecordingQuery()
        register_batch_processor("bank", "echo", rows)
        register_slow_query_processor("bank", "echo", queries)
        batches.submit("bank", "echo", ["row"])
        slow_queries.submit("bank", "echo", "query")
        assert drain() == 2
        assert [row.input for row in rows.rows] == ["row"]
        assert [row.input for row in queries.rows] == ["query"]
        check_invariants()

    @pytest.mark.rule("REG-7")
    def test_keeps_names_apart_that_join_to_the_same_text(self, registry):
        """("ab", "c") is not ("a", "bc")."""
        register_batch_processor("ab", "c", lambda row: "ab/c")
        register_batch_processor("a", "bc", lambda row: "a/bc")
        first, second = batches.submit("ab", "c", [1]), batches.submit("a", "bc", [1])
        drain()
        assert (results(first), results(second)) == (["ab/c"], ["a/bc"])
        check_invariants()

    @pytest.mark.rule("REG-6")
    @pytest.mark.parametrize(
        "processor", [BatchProcessor, BatchProcessor(), RecordingQuery, object(), "echo", 7, RowResult.success()]
    )
    def test_refuses_what_has_no_method_for_rows(self, registry, processor):
        """What cannot do a row's job is refused when it is registered, not when the row comes."""
        with pytest.raises(InvalidInput) as caught:
            register_batch_processor("bank", "echo", processor)
        assert str(caught.value) == f"{processor!r} has no method do_batch_job(row)."
        assert len(registry) == 0

    @pytest.mark.rule("REG-6")
    @pytest.mark.parametrize("processor", [SlowQueryProcessor, SlowQueryProcessor(), Doubling, Duck()])
    def test_refuses_what_has_no_method_for_slow_queries(self, registry, processor):
        """A batch processor answers no slow queries."""
        with pytest.raises(InvalidInput) as caught:
            register_slow_query_processor("bank", "echo", processor)
        assert str(caught.value) == f"{processor!r} has no method do_slow_query(row)."

    @pytest.mark.rule("REG-6")
    def test_refuses_a_function_that_does_not_take_a_row(self, registry):
        """A function of another number of arguments is refused."""

        def nothing():
            pass

        def two(row, context):
            pass

        for function in (nothing, two):
            with pytest.raises(InvalidInput) as caught:
                register_batch_processor("bank", "echo", function)
            assert str(caught.value) == f"{function!r} must take one argument, the row."

    @pytest.mark.rule("REG-6")
    def test_refuses_a_method_that_does_not_take_a_row(self, registry):
        """A method of another number of arguments is refused."""

        class Wrong(BatchProcessor):
            def do_batch_job(self, line, input):
                pass

        with pytest.raises(InvalidInput) as caught:
            register_batch_processor("bank", "echo", Wrong)
        assert str(caught.value) == f"{Wrong!r} must take one argument, the row."

    def test_refuses_a_class_that_needs_arguments(self, registry):
        """A class that cannot be made without arguments is refused with the way out: an instance."""
        with pytest.raises(InvalidInput) as caught:
            register_batch_processor("bank", "echo", Needy)
        assert str(caught.value).startswith(f"{Needy!r} cannot be made without arguments (")
        assert str(caught.value).endswith("); register an instance.")
        assert register_batch_processor("bank", "echo", Needy("url")).url == "url"

    @pytest.mark.parametrize(("app", "op", "field"), [("no name", "echo", "app"), ("bank", "", "op")])
    def test_refuses_a_bad_name(self, registry, app, op, field):
        """App and op are checked like every name."""
        for register in (register_batch_processor, register_slow_query_processor):
            with pytest.raises(InvalidInput) as caught:
                register(app, op, echo)
            assert caught.value.field == field


class SameAgainTests:
    @pytest.mark.rule("REG-3")
    def test_a_method_of_the_same_instance_is_the_same(self, registry):
        """A bound method is made anew at each look; registered again it is still the same."""
        doubling = Doubling()
        for _ in range(2):
            register_batch_processor("bank", "echo", doubling.do_batch_job)
        assert len(registry) == 1

    @pytest.mark.rule("REG-6")
    def test_a_function_that_does_not_tell_its_arguments_is_believed(self, registry):
        """What is written in C may have no signature."""
        register_batch_processor("bank", "echo", max)
        assert ("bank", "echo") in registry

    @pytest.mark.rule("REG-6")
    def test_refuses_an_initializer_that_does_not_take_the_app(self, registry):
        """A function without an argument is refused at once, not when the first row comes."""

        def make():
            return None

        with pytest.raises(InvalidInput) as caught:
            register_initializer("bank", make)
        assert str(caught.value) == f"{make!r} must take one argument, the app."


class OptionTests:
    @pytest.mark.rule("REG-6")
    def test_refuses_an_unknown_option(self, registry):
        """An option that does not exist is named, with those that do."""
        with pytest.raises(InvalidInput) as caught:
            register_batch_processor("bank", "echo", echo, chunk_row=5)
        assert str(caught.value).startswith("chunk_row: is no option of a batch processor; known: ")
        assert "chunk_rows" in str(caught.value)
        assert caught.value.field == "chunk_row"

    @pytest.mark.rule("REG-6")
    def test_refuses_options_beside_a_class_or_an_instance(self, registry):
        """A class says its options in its attributes."""
        for processor in (Doubling, Doubling()):
            with pytest.raises(InvalidInput) as caught:
                register_batch_processor("bank", "echo", processor, chunk_rows=5)
            assert str(caught.value) == (
                f"chunk_rows: options go with a function; {processor!r} has attributes for them."
            )
            assert caught.value.field == "chunk_rows"

    @pytest.mark.rule("REG-6")
    @pytest.mark.parametrize(
        ("name", "value", "wanted"),
        [
            *(("chunk_rows", value, "a whole number above 0") for value in (0, -1, True, "10", 2.5)),
            *(("max_attempts", value, "a whole number above 0") for value in (0, True, 1.5)),
            *(("concurrency", value, "a whole number from 1 to 1000") for value in (0, 1001, None, "2")),
            *(("time_limit", value, "a number of seconds above 0") for value in (0, -1, float("nan"), "1 s", True)),
            *(("max_failed", value, "a whole number of rows, or a share below 1") for value in (-1, 1.5, True, "1%")),
            *(("retry_on", value, "a tuple of exception classes") for value in (OSError, (int,), ("OSError",), None)),
            *(("atomic", value, "True or False") for value in (1, None, "yes")),
        ],
    )
    def test_refuses_a_value_that_no_worker_could_work_with(self, registry, name, value, wanted):
        """It is refused when it is registered, of a function and of a class."""
        for processor, options in ((echo, {name: value}), (type("Own", (Doubling,), {name: value}), {})):
            with pytest.raises(InvalidInput) as caught:
                register_batch_processor("bank", "echo", processor, **options)
            assert str(caught.value) == f"{name}: must be {wanted}, not {value!r}."

    @pytest.mark.rule("REG-6")
    @pytest.mark.parametrize("name", ["chunk_rows", "concurrency", "max_failed"])
    def test_refuses_for_a_slow_query_what_has_no_meaning_there(self, registry, name):
        """A slow query has one row."""
        with pytest.raises(InvalidInput) as caught:
            register_slow_query_processor("bank", "echo", echo, **{name: 1})
        assert str(caught.value) == (
            f"{name}: is no option of a slow query processor; known: atomic, max_attempts, time_limit, retry_on."
        )

    @pytest.mark.rule("ATM-1")
    def test_refuses_atomic_where_it_cannot_hold(self, registry):
        """A transaction belongs to one thread: neither coroutines nor several rows at once can share it."""

        async def coroutine(row):
            return None

        with pytest.raises(InvalidInput) as caught:
            register_batch_processor("bank", "echo", coroutine, atomic=True)
        assert str(caught.value) == "atomic: a coroutine cannot run in the transaction that records its row."
        with pytest.raises(InvalidInput) as caught:
            register_batch_processor("bank", "echo", echo, atomic=True, concurrency=2)
        assert str(caught.value) == (
            "atomic: rows in one transaction are processed one after the other: concurrency is 1."
        )

    def test_keeps_what_was_asked_for(self, registry, settings):
        """A registration has the options of its function or class, and the settings stand for what it leaves out."""
        settings.ALYA = {"MAX_ATTEMPTS": 7, "TIME_LIMIT_SECONDS": 30}
        register_batch_processor("bank", "echo", echo, max_failed=0.25, time_limit=2, retry_on=(OSError,))
        options = registry.find(Kind.BATCH, "bank", "echo").options
        assert (options.max_failed, options.seconds, options.attempts, options.retry_on) == (0.25, 2, 7, (OSError,))
        register_batch_processor("bank", "double", type("Own", (Doubling,), {"max_attempts": 1}))
        options = registry.find(Kind.BATCH, "bank", "double").options
        assert (options.seconds, options.attempts, options.atomic, options.concurrency) == (30, 1, False, 1)


class RegistryTests:
    def test_tells_what_it_has(self, registry):
        """It answers ``in`` with either kind and any case, and lists what is registered."""
        assert (len(registry), repr(registry)) == (0, "<Registry: empty>")
        register_slow_query_processor("bank", "report", echo)
        register_batch_processor("bank", "echo", echo)
        assert ("Bank", "ECHO") in registry
        assert ("bank", "report") in registry
        assert ("bank", "other") not in registry
        assert "bank" not in registry
        assert repr(registry) == "<Registry: bank/echo (batch), bank/report (slow query)>"

    def test_is_restored_after_an_isolated_block(self, registry):
        """Inside ``isolated_registry`` nothing is registered; afterwards all is as it was, even after an error."""
        register_batch_processor("bank", "echo", echo)
        register_initializer("bank", CountingInitializer())

        def fail_inside():
            with isolated_registry():
                assert len(registry) == 0
                assert registry.make_init_block("bank") is None
                register_batch_processor("bank", "echo", broken)
                raise LookupError

        with pytest.raises(LookupError):
            fail_inside()
        assert registry.find(Kind.BATCH, "bank", "echo").source is echo
        assert registry.make_init_block("bank") is not None

    def test_loses_no_registration_of_another_thread(self, registry):
        """Threads that register at the same moment lose none of their ops, and one op has one winner."""
        threads = 20
        start = threading.Barrier(threads)
        refused = []

        def register(number):
            start.wait(timeout=30)
            register_batch_processor("bank", f"op{number}", echo)
            try:
                register_batch_processor("bank", "shared", lambda row: number)
            except AlreadyRegistered as error:
                refused.append(error)

        workers = [threading.Thread(target=register, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=30)
        assert len(registry) == threads + 1
        assert len(refused) == threads - 1
