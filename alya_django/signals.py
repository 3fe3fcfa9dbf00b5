"""What Alya tells the rest of a project, after the commit, with ``sender=Batch``."""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

from alya_django import log_words

logger = logging.getLogger("alya_django")


class QuietSignal(Signal):
    """A signal whose receivers may fail; that is logged as all else is, for Django would quote what they say."""

    def _log_robust_failure(self, receiver: Any, err: Exception) -> None:
        # What can be called need not have a name, such as a partial.
        name = getattr(receiver, "__qualname__", type(receiver).__qualname__)
        said = log_words.of_error(err)
        logger.error("The receiver %s failed: %s", name, said, exc_info=log_words.traceback_of(err))


batch_submitted = QuietSignal()
"""A batch was stored. Arguments: ``batch_id``, ``app``, ``op``, ``kind``. Sent once."""

batch_finished = QuietSignal()
"""A batch reached a final state. Argument: ``details``, a BatchDetails. Sent at most once."""

worker_lost = QuietSignal()
"""A worker died. Arguments: ``worker``, its name; ``rows``, how many it had in hand. Sent at most once."""
