"""Which processor serves an (app, op), and which initializer an app. Filled in a project's ``AppConfig.ready()``."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from asgiref.sync import async_to_sync

from alya_django.answers import BatchDetails
from alya_django.exceptions import AlreadyRegistered, InvalidInput
from alya_django.options import Options, names, options_of
from alya_django.processors import BatchProcessor, Initializer, SlowQueryProcessor
from alya_django.status import Kind
from alya_django.validation import OWN_APP, fold_app, fold_name

Processor = TypeVar("Processor")
Key = tuple[Kind, str, str]

METHODS = {Kind.BATCH: "do_batch_job", Kind.SLOW_QUERY: "do_slow_query"}


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """A processor and what it is registered for; ``source`` is what the project gave."""

    kind: Kind
    app: str
    op: str
    processor: Any
    source: Any
    options: Options

    def __str__(self) -> str:
        return f"{self.app}/{self.op}"

    @property
    def key(self) -> Key:
        """What the registry knows it by."""
        return self.kind, self.app, self.op

    @property
    def is_own(self) -> bool:
        """Whether it is one of Alya's own."""
        return self.app == OWN_APP

    @property
    def method(self) -> Callable[[Any], Any]:
        """What processes one Row, in this thread."""
        return _synchronous(self.raw_method)

    @property
    def raw_method(self) -> Callable[[Any], Any]:
        """The same as the project wrote it, perhaps a coroutine function."""
        method: Callable[[Any], Any] = getattr(self.processor, METHODS[self.kind])
        return method

    @property
    def mark_done(self) -> Callable[[BatchDetails], Any]:
        """What acts on a batch that has ended; a processor that does not inherit it may do without."""
        return _synchronous(getattr(self.processor, "mark_done", lambda details: None))


class Registry:
    """
    The processors and initializers of this process.

    ``(app, op) in registry`` tells whether either kind is registered; iteration yields Registrations in the
    order of app, op and kind. Reading takes no lock: every registration replaces the whole table.
    """

    def __init__(self) -> None:
        self._processors: dict[Key, Registration] = {}
        self._initializers: dict[str, tuple[Any, Any]] = {}
        self._writing = threading.Lock()

    def register_initializer(self, app: str, initializer: Any) -> None:
        """
        Register what makes the init block of an app: an object with ``init(app)``, its class, or a callable.

        Raises:
            AlreadyRegistered: The app has another initializer.
            InvalidInput: The app is no name, or the initializer neither has ``init`` nor can be called.
        """
        app = fold_name(app, "app")
        instance = _instance(initializer)
        own = getattr(type(instance), "init", None)
        if own is Initializer.init or not (callable(getattr(instance, "init", None)) or callable(instance)):
            raise InvalidInput(f"{initializer!r} has no method init(app) and cannot be called.")
        _check_takes_one(getattr(instance, "init", instance), initializer, "the app")
        with self._writing:
            earlier, _ = self._initializers.get(app, (None, None))
            if earlier is None:
                self._initializers = {**self._initializers, app: (initializer, instance)}
            elif earlier is not initializer:
                raise AlreadyRegistered(f"There is an initializer for app {app!r} already.", app=app)

    def register_processor(self, kind: Kind, app: str, op: str, source: Any, options: dict[str, Any]) -> None:
        """Register a class, an instance or a function for an (app, op); the same once more changes nothing."""
        app, op = fold_name(app, "app"), fold_name(op, "op")
        key = (kind, app, op)
        processor = _processor(kind, source, options)
        checked = options_of(kind, processor, getattr(processor, METHODS[kind]))
        registration = Registration(kind, app, op, processor, source, checked)
        with self._writing:
            earlier = self._processors.get(key)
            if earlier is None:
                self._processors = {**self._processors, key: registration}
            elif earlier.source != source:
                raise AlreadyRegistered(
                    f"There is a {kind.label} processor for app {app!r} and op {op!r} already.",
                    app=app,
                    op=op,
                )

    def find(self, kind: Kind, app: str, op: str) -> Registration | None:
        """Return the registration that serves batches of this kind, app and op."""
        return self._processors.get((kind, app, op))

    def make_init_block(self, app: str) -> Any:
        """Return a new init block for an app, None where the app has no initializer."""
        _, initializer = self._initializers.get(app, (None, None))
        return None if initializer is None else getattr(initializer, "init", initializer)(app)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Be empty for a while; for tests."""
        kept = self._processors, self._initializers
        self._processors, self._initializers = {}, {}
        try:
            yield
        finally:
            self._processors, self._initializers = kept

    def __contains__(self, pair: object) -> bool:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            return False
        app, op = (str(name).lower() for name in pair)
        return any((kind, app, op) in self._processors for kind in Kind)

    def __iter__(self) -> Iterator[Registration]:
        return iter(sorted(self._processors.values(), key=lambda entry: (entry.app, entry.op, entry.kind)))

    def __len__(self) -> int:
        return len(self._processors)

    def __repr__(self) -> str:
        entries = (f"{entry.app}/{entry.op} ({entry.kind.label})" for entry in self)
        return f"<Registry: {', '.join(entries) or 'empty'}>"


registry = Registry()


def register_initializer(app: str, initializer: Any) -> None:
    """Register what makes the init block of an app, in the project's registry; see Registry."""
    registry.register_initializer(fold_app(app), initializer)


@overload
def register_batch_processor(app: str, op: str, processor: Processor, **options: Any) -> Processor: ...
@overload
def register_batch_processor(
    app: str, op: str, processor: None = None, **options: Any
) -> Callable[[Processor], Processor]: ...
def register_batch_processor(app: str, op: str, processor: Any = None, **options: Any) -> Any:
    """
    Register what processes the rows of an (app, op); without ``processor``, return a decorator.

    Args:
        processor: A subclass of BatchProcessor or an instance, anything with ``do_batch_job(row)``, or a
            function of one Row.
        options: For a function, what a class would say in its attributes: see Options.

    Raises:
        AlreadyRegistered: The pair has another processor of this kind.
        InvalidInput: A name is no name, an option is unknown, or the processor lacks what it needs.

    Source: Alya's RegisterProcessorBatch.
    """
    return _register(Kind.BATCH, app, op, processor, options)


@overload
def register_slow_query_processor(app: str, op: str, processor: Processor, **options: Any) -> Processor: ...
@overload
def register_slow_query_processor(
    app: str, op: str, processor: None = None, **options: Any
) -> Callable[[Processor], Processor]: ...
def register_slow_query_processor(app: str, op: str, processor: Any = None, **options: Any) -> Any:
    """
    Register what answers the slow queries of an (app, op), as ``register_batch_processor`` does for batches.

    Source: Alya's RegisterProcessorSlowQuery.
    """
    return _register(Kind.SLOW_QUERY, app, op, processor, options)


def _register(kind: Kind, app: str, op: str, processor: Any, options: dict[str, Any]) -> Any:
    def decorate(source: Any) -> Any:
        registry.register_processor(kind, fold_app(app), op, source, options)
        return source

    return decorate if processor is None else decorate(processor)


def _processor(kind: Kind, source: Any, options: dict[str, Any]) -> Any:
    """Return the instance that a class, an instance or a function stands for."""
    if inspect.isroutine(source):
        return _from_function(kind, source, options)
    if options:
        raise InvalidInput(f"options go with a function; {source!r} has attributes for them.", field=min(options))
    instance = _instance(source)
    method = METHODS[kind]
    base = BatchProcessor if kind is Kind.BATCH else SlowQueryProcessor
    own = getattr(type(instance), method, None)
    if not callable(getattr(instance, method, None)) or own is getattr(base, method):
        raise InvalidInput(f"{source!r} has no method {method}(row).")
    _check_takes_one(getattr(instance, method), source, "the row")
    return instance


def _instance(source: Any) -> Any:
    try:
        return source() if inspect.isclass(source) else source
    except TypeError as error:
        raise InvalidInput(f"{source!r} cannot be made without arguments ({error}); register an instance.") from error


def _from_function(kind: Kind, function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """Return an instance whose only method is the function."""
    known = names(kind)
    if unknown := sorted(options.keys() - set(known)):
        raise InvalidInput(f"is no option of a {kind.label} processor; known: {', '.join(known)}.", field=unknown[0])
    _check_takes_one(function, function, "the row")
    base = BatchProcessor if kind is Kind.BATCH else SlowQueryProcessor
    name = getattr(function, "__name__", type(function).__name__)
    return type(name, (base,), {METHODS[kind]: staticmethod(function), **options})()


def _synchronous(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return async_to_sync(method) if inspect.iscoroutinefunction(method) else method


def _check_takes_one(function: Callable[..., Any], source: Any, what: str) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:
        # Some of what is written in C does not tell.
        return
    try:
        signature.bind(object())
    except TypeError:
        raise InvalidInput(f"{source!r} must take one argument, {what}.") from None
