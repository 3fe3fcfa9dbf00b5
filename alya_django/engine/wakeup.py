"""Wait for work: until somebody notifies, until the worker is to stop, or until it is time to look."""

from __future__ import annotations

import logging
import random
import select
import socket
import time
from contextlib import suppress

from alya_django import log_words
from alya_django.db import Database, Listener

logger = logging.getLogger("alya_django.engine")

BACK_OFF_SECONDS = 1.0
BACK_OFF_SECONDS_MAX = 30.0
PIECE_BYTES = 4_096
VAIN_NEWS_SECONDS = 0.1


class Wakeup:
    """
    The rest of one worker, in its own thread.

    Where it listens, and the database has something to listen to, news of work end a rest. The connection for it is
    made at the first rest. One that is lost is quietly made again, with a back-off; until then, as everywhere, the
    worker looks by itself when its rest is over.

    News can come from anybody who may connect. After some that brought no work, the next end a rest only
    VAIN_NEWS_SECONDS later: however many come, they cost no more looks than that.
    """

    def __init__(self, store: Database, *, listens: bool) -> None:
        self._store = store
        self._listens = listens
        self._listener: Listener | None = None
        self._is_vain = False
        self._back_off = BACK_OFF_SECONDS
        self._listen_at = time.monotonic()
        # Written to by a signal handler that cannot take a lock, read by whoever rests: select sees both.
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)

    def wait(self, seconds: float) -> bool:
        """Rest for so long at most: news of work and ``wake`` end it; return whether there were news."""
        # What came before it listened nobody told of: look once more.
        return not self._listen_when_due() and self._rest(seconds, self._listener)

    def rest(self, seconds: float) -> None:
        """Rest for so long, whatever there is to do: only ``wake`` ends it."""
        self._rest(seconds, None)

    def wake(self) -> None:
        """End the rest, or the next one; safe in a signal handler."""
        # Full, it wakes already; closed, nobody rests any more.
        with suppress(OSError):
            self._writer.send(b"\0")

    def found_work(self) -> None:
        """Believe the next news at once: the last were true."""
        self._is_vain = False

    def forget_news(self) -> None:
        """Take in the news so far, before looking for work: what comes from now on ends the next rest."""
        if self._listener is not None:
            self._drain(self._listener)

    def close(self) -> None:
        """Listen no longer."""
        self._drop_listener()
        self._reader.close()
        self._writer.close()

    def _rest(self, seconds: float, listener: Listener | None) -> bool:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if listener is not None:
            poll.register(listener, select.POLLIN)
        ready = {number for number, _ in poll.poll(seconds * 1_000)}
        if self._reader.fileno() in ready:
            self._reader.recv(PIECE_BYTES)
        if listener is None or listener.fileno() not in ready:
            return False
        return self._drain(listener) and self._believe()

    def _believe(self) -> bool:
        """Return true, and later where the last news were in vain: more may come until then."""
        if self._is_vain:
            self._rest(VAIN_NEWS_SECONDS, None)
        self._is_vain = True
        return True

    def _listen_when_due(self) -> bool:
        """Listen if it is time to, and return whether it has just begun."""
        if not self._listens or self._listener is not None or time.monotonic() < self._listen_at:
            return False
        try:
            self._listener = self._store.listen()
        except OSError as error:
            self._lose(error)
            return False
        self._listens = self._listener is not None
        self._back_off = BACK_OFF_SECONDS
        return self._listens

    def _drain(self, listener: Listener) -> bool:
        try:
            return listener.drain()
        except OSError as error:
            self._drop_listener()
            self._lose(error)
            return False

    def _lose(self, error: OSError) -> None:
        said = log_words.of_error(error)
        logger.info("Nothing is heard of new work for a while, it is looked for: %s", said)
        self._listen_at = time.monotonic() + self._back_off * random.uniform(2 / 3, 4 / 3)
        self._back_off = min(self._back_off * 2, BACK_OFF_SECONDS_MAX)

    def _drop_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
