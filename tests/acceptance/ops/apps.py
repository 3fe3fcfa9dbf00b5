"""Ops whose rows take as long as a test wants."""

import asyncio
import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_init

from alya_django import (
    BatchDetails,
    BatchInput,
    BatchProcessor,
    Row,
    RowResult,
    register_batch_processor,
    register_file_checker,
    register_slow_query_processor,
)
from tests.acceptance.ops import misbehaviour


class OpsConfig(AppConfig):
    name = "tests.acceptance.ops"
    label = "acceptance_ops"

    def ready(self) -> None:
        if release := getattr(settings, "RELEASE", None):
            register_batch_processor("acceptance", release, sleep)
            return
        # Not before the models are there. A test does not wait as long as a worker whose storage failed.
        from alya_django.engine import finish

        finish.STORAGE_REST_SECONDS = float(os.environ.get("ACCEPTANCE_STORAGE_REST_SECONDS", "30"))
        register_batch_processor("acceptance", "sleep", sleep)
        register_batch_processor("acceptance", "stay", stay)
        register_batch_processor("acceptance", "write", write)
        register_batch_processor("acceptance", "refuse", Refusing)
        register_slow_query_processor("acceptance", "answer", answer)
        register_batch_processor("acceptance", "perform", perform)
        register_slow_query_processor("acceptance", "perform", perform)
        register_file_checker("mortal", die_once, app="acceptance", op="sleep")
        register_file_checker("deadly", die_of_file, app="acceptance", op="sleep")
        register_batch_processor("acceptance", "limited", perform, time_limit=1)
        register_slow_query_processor("acceptance", "limited", perform, time_limit=1)
        register_batch_processor("acceptance", "threads", perform, time_limit=1, concurrency=4)
        register_batch_processor("acceptance", "coroutines", await_it, time_limit=1, concurrency=4)
        misbehaviour.register()
        if memory := os.environ.get("ACCEPTANCE_MEMORY_BYTES"):
            resource.setrlimit(resource.RLIMIT_AS, (int(memory), resource.RLIM_INFINITY))
        if moment := os.environ.get("ACCEPTANCE_DIE_WHEN_FILE_IS"):
            die_when_file_is(moment)
        if os.environ.get("ACCEPTANCE_DIE_AT_BIRTH"):
            post_init.connect(die, sender="alya_django.Worker", weak=False)


def sleep(row: Row) -> None:
    """Take the seconds that the row's input says."""
    time.sleep(row.input)


def stay(row: Row) -> None:
    """Make the file that the row's input names, and do not end."""
    Path(row.input).touch()
    time.sleep(3_600)


def write(row: Row) -> RowResult:
    """Give the text that the row's input says to an output file."""
    return RowResult.success(output_lines={"lines.txt": row.input})


class Refusing(BatchProcessor):
    """Quote all that it gets in what it raises."""

    def do_batch_job(self, row: Row) -> None:
        raise ValueError(row.input)

    def mark_done(self, details: BatchDetails) -> None:
        raise ValueError(details.context)


def answer(row: Row) -> Any:
    """Answer with the question."""
    return row.input


def perform(row: Row) -> None:
    """Do what the row's input says: end soon, hang, or take the worker along."""
    if row.input == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3_600 if row.input == "hang" else 0.01)


def die_once(file: Any, file_name: str, context: Any) -> Iterator[BatchInput]:
    """Read a file of rows, and take the worker along in the middle, unless the file of that name is there already."""
    for line in range(1, 1_001):
        yield BatchInput(line, 0)
    grave = Path(file_name)
    if not grave.exists():
        grave.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield BatchInput(1_001, 0)


def die_of_file(file: Any, file_name: str, context: Any) -> Iterator[BatchInput]:
    """Read a file of rows, and die as its first line says, whoever reads it."""
    ending = file.readline().strip()
    if ending == b"exit":
        os._exit(3)
    if ending == b"segfault":
        ctypes.string_at(0)
    yield BatchInput(1, 0)


async def await_it(row: Row) -> None:
    """End soon, or hang, as the row's input says."""
    await asyncio.sleep(3_600 if row.input == "hang" else 0.01)


def die(**kwargs: Any) -> None:
    """Keep a worker from registering."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_when_file_is(moment: str) -> None:
    """Have ``alya_watch`` die in the middle of its first file, at a moment between two things that it does."""
    from alya_django.intake import claims, receive, watch

    if moment == "about to move":
        claims.os = SimpleNamespace(**{**vars(os), "fsync": die_of_it})
    elif moment == "moved":
        watch.process = die_of_it
    elif moment == "stored":
        receive._decide = die_of_it
    elif moment == "about to be committed":
        receive.Faults.save = then_die(receive.Faults.save)
    elif moment == "copied":
        receive.objects.copy_to_failed = then_die(receive.objects.copy_to_failed)
    elif moment == "rejected":
        receive.outputs = SimpleNamespace(**{**vars(receive.outputs), "delete": die_of_it})
    elif moment == "committed":
        claims.Claim.remove = die_of_it
    else:
        claims.Folder.remove_claim = die_of_it


def die_of_it(*args: Any, **kwargs: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def then_die(act: Callable[..., Any]) -> Callable[..., None]:
    """Return what does something and dies of it."""

    def do(*args: Any, **kwargs: Any) -> None:
        act(*args, **kwargs)
        die_of_it()

    return do
