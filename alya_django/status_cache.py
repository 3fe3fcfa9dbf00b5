"""
The states of batches in the project's Django cache.

A copy, and best effort: whatever happens to the cache, the verbs answer from the database. Only readers of an
unfinished batch depend on its age, which is a second at most.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache

from alya_django.answers import Summary
from alya_django.conf import settings
from alya_django.status import Kind, Status
from alya_django.validation import check_id

logger = logging.getLogger("alya_django")
Answer = TypeVar("Answer")
Part = TypeVar("Part")

UNFINISHED_SECONDS = 1
FINAL_FACTOR = 100


def status_key(batch_id: UUID | str) -> str:
    """
    Return the key under which the status of a batch is cached.

    The braces are literal: they keep the keys of one batch in one slot of a Redis Cluster.

    Source: Alya's GetBatchStatusRedisKey.
    """
    return _key(check_id(batch_id), "STATUS")


def load(batch_id: UUID) -> Summary | None:
    """Return the cached summary of a batch; None if there is none, or none that can be read."""
    text = _best_effort(lambda cache: cache.get(_key(batch_id, "SUMMARY")))
    try:
        return None if text is None else _from_text(text)
    except Exception:
        logger.warning("The cached summary of batch %s cannot be read; the database answers.", batch_id)
        return None


def store(batch_id: UUID, summary: Summary) -> None:
    """Cache a summary that the database has committed; one that is not final never replaces another."""
    entries = {status_key(batch_id): summary.status.value, _key(batch_id, "SUMMARY"): _to_text(summary)}
    if summary.status.is_final:
        seconds = FINAL_FACTOR * settings.STATUS_CACHE_SECONDS
        _best_effort(lambda cache: cache.set_many(entries, seconds))
    else:
        _best_effort(lambda cache: [cache.add(*entry, UNFINISHED_SECONDS) for entry in entries.items()])


def drop(batch_id: UUID) -> None:
    """Forget a batch, whose state is about to change."""
    keys = [status_key(batch_id), _key(batch_id, "SUMMARY")]
    _best_effort(lambda cache: cache.delete_many(keys))


def _key(batch_id: UUID, part: str) -> str:
    return f"ALYA_{{{batch_id}}}_{part}"


def _best_effort(act: Callable[[BaseCache], Answer]) -> Answer | None:
    try:
        return act(caches[settings.CACHE])
    except Exception as error:
        logger.warning("The cache %r does not answer: %s", settings.CACHE, error)
        return None


def _to_text(summary: Summary) -> str:
    return json.dumps(
        {
            "status": summary.status.value,
            "kind": summary.kind.value,
            "nrows": summary.nrows,
            "nsuccess": summary.nsuccess,
            "nfailed": summary.nfailed,
            "naborted": summary.naborted,
            "held": summary.held,
            "outputFiles": dict(summary.output_files),
            "parent": str(summary.parent) if summary.parent else None,
        }
    )


def _from_text(text: str) -> Summary:
    stored = json.loads(text)
    return Summary(
        status=Status(stored["status"]),
        kind=Kind(stored["kind"]),
        nrows=_checked(int, stored["nrows"]),
        nsuccess=_checked(int, stored["nsuccess"]),
        nfailed=_checked(int, stored["nfailed"]),
        naborted=_checked(int, stored["naborted"]),
        held=_checked(bool, stored["held"]),
        output_files=_checked(dict, stored["outputFiles"]),
        parent=UUID(stored["parent"]) if stored["parent"] else None,
    )


def _checked(kind: type[Part], value: object) -> Part:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
