"""
The states of batches, and the answers of slow queries, in the project's Django cache.

A copy, and best effort: whatever happens to the cache, the verbs answer from the database. Only readers of an
unfinished batch depend on its age, which is a second at most. It is for showing: nothing that is opened, allowed or
decided may follow from it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from django.core.cache.backends.base import BaseCache

from alya_django import cached_json
from alya_django.answers import ErrorMessage, QueryAnswer, Summary
from alya_django.best_effort import BestEffort
from alya_django.conf import settings
from alya_django.status import Kind, Status
from alya_django.validation import check_id

logger = logging.getLogger("alya_django")
Answer = TypeVar("Answer")

UNFINISHED_SECONDS = 1
FINAL_FACTOR = 100
RESULT_CHARS_MAX = 100_000
PARTS = ("STATUS", "SUMMARY", "RESULT", "OUTFILES")

access = BestEffort()


def status_key(batch_id: UUID | str) -> str:
    """
    Return the key under which the status of a batch is cached.

    The braces are literal: they keep the keys of one batch in one slot of a Redis Cluster.

    Source: Alya's GetBatchStatusRedisKey.
    """
    return _key(check_id(batch_id), "STATUS")


def load(batch_id: UUID) -> Summary | None:
    """Return the cached summary of a batch; None if there is none, or none that can be read."""
    return _load(batch_id, ["SUMMARY"], lambda texts: _to_summary(texts["SUMMARY"]))


def load_answer(query_id: UUID) -> QueryAnswer | None:
    """Return the cached answer of a slow query that has ended; None if it is not there, or cannot be read."""
    return _load(query_id, ["STATUS", "RESULT", "OUTFILES"], _to_answer)


def store(batch_id: UUID, summary: Summary, answer: QueryAnswer | None = None) -> None:
    """
    Cache a summary, and a slow query's answer, that the database has committed.

    One that is not final never replaces another. What belongs to one end is written in one call.
    """
    if summary.status.is_final:
        seconds = FINAL_FACTOR * settings.STATUS_CACHE_SECONDS
        _best_effort(lambda cache: cache.set_many(_entries(batch_id, summary, answer), seconds))
    else:
        # Whoever finds the first there need not try the second.
        _best_effort(
            lambda cache: all(cache.add(*entry, UNFINISHED_SECONDS) for entry in _entries(batch_id, summary).items())
        )


def drop(batch_id: UUID) -> None:
    """Forget a batch, whose state is about to change."""
    _best_effort(lambda cache: cache.delete_many([_key(batch_id, part) for part in PARTS]))


def _key(batch_id: UUID, part: str) -> str:
    return f"ALYA_{{{batch_id}}}_{part}"


def _best_effort(act: Callable[[BaseCache], Answer]) -> Answer | None:
    return access(settings.CACHE, act)


def _load(batch_id: UUID, parts: list[str], read: Callable[[dict[str, Any]], Answer]) -> Answer | None:
    """Return what is read from the texts of some parts; None if one is missing or cannot be read."""
    keys = {_key(batch_id, part): part for part in parts}
    found = _best_effort(lambda cache: cache.get_many(keys)) or {}
    texts = {keys[key]: text for key, text in found.items() if text is not None}
    if len(texts) < len(parts):
        return None
    try:
        return read(texts)
    except Exception:
        logger.warning("What is cached of batch %s cannot be read; the database answers.", batch_id)
        drop(batch_id)
        return None


def _entries(batch_id: UUID, summary: Summary, answer: QueryAnswer | None = None) -> dict[str, str]:
    """Return what is cached of a batch by its keys, without what is too long for that."""
    entries = {"STATUS": summary.status.value, "SUMMARY": _from_summary(summary)}
    if answer is not None:
        entries["OUTFILES"] = json.dumps(dict(answer.output_files))
        entries["RESULT"] = _from_result(answer)
    return {_key(batch_id, part): text for part, text in entries.items() if len(text) <= _chars_max(part)}


def _chars_max(part: str) -> int:
    return RESULT_CHARS_MAX if part == "RESULT" else cached_json.CHARS_MAX


def _from_summary(summary: Summary) -> str:
    return json.dumps(
        {
            "status": summary.status.value,
            "kind": summary.kind.value,
            "nrows": summary.nrows,
            "nsuccess": summary.nsuccess,
            "nfailed": summary.nfailed,
            "naborted": summary.naborted,
            "nputOff": summary.nput_off,
            "held": summary.held,
            "totalsMismatch": summary.totals_mismatch,
            "outputFiles": dict(summary.output_files),
            "parent": str(summary.parent) if summary.parent else None,
        }
    )


def _to_summary(text: object) -> Summary:
    stored = cached_json.read(text)
    return Summary(
        status=Status(stored["status"]),
        kind=Kind(stored["kind"]),
        nrows=cached_json.count(stored["nrows"]),
        nsuccess=cached_json.count(stored["nsuccess"]),
        nfailed=cached_json.count(stored["nfailed"]),
        naborted=cached_json.count(stored["naborted"]),
        nput_off=cached_json.count(stored["nputOff"]),
        held=cached_json.part(bool, stored["held"]),
        totals_mismatch=cached_json.part(str, stored["totalsMismatch"]),
        output_files=cached_json.texts(stored["outputFiles"]),
        parent=UUID(stored["parent"]) if stored["parent"] else None,
    )


def _from_result(answer: QueryAnswer) -> str:
    return json.dumps({"result": answer.result, "messages": [message.as_json() for message in answer.messages]})


def _to_answer(texts: Mapping[str, Any]) -> QueryAnswer | None:
    status = Status(texts["STATUS"])
    if not status.is_final:
        return None
    stored = cached_json.read(texts["RESULT"])
    return QueryAnswer(
        status=status,
        result=stored["result"],
        messages=tuple(map(ErrorMessage.from_json, cached_json.part(list, stored["messages"]))),
        output_files=cached_json.texts(cached_json.read(texts["OUTFILES"])),
    )
