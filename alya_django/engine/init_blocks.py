"""The init blocks of one worker: made before an app's first row, kept while they are alive, closed once."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from alya_django import log_words
from alya_django.conf import settings
from alya_django.faults import describe, spare_ctrl_c
from alya_django.models import database
from alya_django.registry import registry

logger = logging.getLogger("alya_django.engine")

BACK_OFF_SECONDS_MAX = 60.0


class InitFailed(Exception):
    """An app's initializer raised; ``is_hopeless`` once it has done so for CONFIG_FAILURE_SECONDS."""

    def __init__(self, app: str, cause: BaseException, *, delay: float, is_hopeless: bool) -> None:
        self.cause = cause
        self.delay = delay
        self.is_hopeless = is_hopeless
        super().__init__(f"The initializer of app {app!r} failed: {describe(cause)}")


@dataclass(slots=True)
class _Failing:
    since: float
    delay: float
    retry_at: float


class InitBlocks:
    """One block per app, None where the app has no initializer; used by one thread alone."""

    def __init__(self, failing: dict[str, _Failing] | None = None) -> None:
        self._blocks: dict[str, Any] = {}
        self._failing: dict[str, _Failing] = {} if failing is None else failing

    def beside(self) -> InitBlocks:
        """Return blocks for another thread of the worker, with which initializers are given a rest together."""
        return InitBlocks(self._failing)

    def is_usable(self, app: str) -> bool:
        """Return whether rows of an app may be claimed: not while its initializer is given a rest."""
        failing = self._failing.get(app)
        return failing is None or time.monotonic() >= failing.retry_at

    def resting(self) -> list[str]:
        """Return the apps whose initializers are given a rest."""
        return [app for app in self._failing if not self.is_usable(app)]

    def get(self, app: str) -> Any:
        """Return the app's live block, made anew if there is none; raise InitFailed."""
        if app in self._blocks and not _is_alive(self._blocks[app]):
            self._close(app)
        if app not in self._blocks:
            try:
                self._blocks[app] = database().guarded(registry.make_init_block)(app)
            except BaseException as error:
                spare_ctrl_c(error)
                raise self._failed(app, error) from error
            self._failing.pop(app, None)
        return self._blocks[app]

    def close(self) -> None:
        """Close all blocks."""
        for app in list(self._blocks):
            self._close(app)

    def _close(self, app: str) -> None:
        block = self._blocks.pop(app)
        try:
            if hasattr(block, "close"):
                block.close()
        except BaseException as error:
            spare_ctrl_c(error)
            said = log_words.of_error(error)
            logger.error(
                "The init block of app %s could not be closed: %s", app, said, exc_info=log_words.traceback_of(error)
            )

    def _failed(self, app: str, error: BaseException) -> InitFailed:
        now = time.monotonic()
        failing = self._failing.setdefault(app, _Failing(since=now, delay=0.5, retry_at=now))
        failing.delay = min(failing.delay * 2, BACK_OFF_SECONDS_MAX)
        failing.retry_at = now + failing.delay
        is_hopeless = now - failing.since >= settings.CONFIG_FAILURE_SECONDS
        return InitFailed(app, error, delay=failing.delay, is_hopeless=is_hopeless)


def _is_alive(block: Any) -> bool:
    try:
        return bool(block.is_alive()) if hasattr(block, "is_alive") else True
    except BaseException as error:
        spare_ctrl_c(error)
        return False
