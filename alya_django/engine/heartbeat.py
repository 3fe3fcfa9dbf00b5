"""Show that a worker is alive, however long its rows take."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from alya_django import log_words
from alya_django.conf import settings
from alya_django.db import Database
from alya_django.models import Worker

logger = logging.getLogger("alya_django.engine")


class Heartbeat:
    """
    The beat of one worker, which tells how many rows a second it ends, and that it is about to stop.

    It beats when it is asked to, between chunks, and from ``start`` to ``stop`` in a thread on a connection of its
    own, where the database lets two connections write side by side. ``is_lost`` once a beat found no worker to beat
    for: it was taken for dead.
    """

    def __init__(self, store: Database, worker_id: int, is_stopping: Callable[[], bool] = lambda: False) -> None:
        self._store = store
        self._is_stopping = is_stopping
        self._worker_id = worker_id
        self._rows = 0
        self._beat_at = time.monotonic()
        self._thread: threading.Thread | None = None
        self._is_ending = threading.Event()
        self.is_lost = False

    def count(self, rows: int) -> None:
        """Take in that the worker has ended some rows."""
        self._rows += rows

    def beat_when_due(self) -> None:
        """Beat if it is time to and no thread does."""
        if self._thread is None and time.monotonic() >= self._beat_at + settings.HEARTBEAT_SECONDS:
            self.beat()

    def start(self) -> None:
        """Beat in a thread from now on, if the database allows it."""
        if self._store.allows_many_writers:
            self._thread = threading.Thread(target=self._run, name="alya-heartbeat", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop beating; no beat follows."""
        self._is_ending.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_ending.wait(settings.HEARTBEAT_SECONDS):
                try:
                    self.beat()
                except Exception as error:
                    # The next beat tries a new connection; what the worker itself meets ends it or not. An outage
                    # has many beats, and no traceback of them says more than the first.
                    logger.warning("A heartbeat failed: %s", log_words.of_error(error))
                    self._store.connection.close()
        finally:
            self._store.connection.close()

    def beat(self) -> None:
        """Beat now."""
        now = time.monotonic()
        rate = self._rows / max(now - self._beat_at, 1e-6)
        self._rows, self._beat_at = 0, now
        worker = Worker.objects.primary().filter(pk=self._worker_id)
        self.is_lost = not worker.beat(rate, is_stopping=self._is_stopping())
