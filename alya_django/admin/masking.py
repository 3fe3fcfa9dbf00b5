"""What of a payload a person may see: what the project masks stays hidden from whoever may not see inputs."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from typing import Any

from django.http import HttpRequest
from django.utils.module_loading import import_string

from alya_django import log_words
from alya_django.admin import permissions
from alya_django.answers import ErrorMessage
from alya_django.conf import settings
from alya_django.models import Batch
from alya_django.validation import JSON

logger = logging.getLogger("alya_django.admin")

MASK = "•••"


def shown(request: HttpRequest, batch: Batch, what: str, value: JSON) -> JSON:
    """
    Return a payload as a person may see it: as it is, or with what MASK_KEYS and MASK_WITH hide.

    Args:
        what: Which payload it is: ``input``, ``result``, ``messages`` or ``context``.
    """
    if value is None or permissions.may(request, permissions.INPUT, batch):
        return value
    keys = {key.casefold() for key in settings.MASK_KEYS}
    return _masked_by_project(batch, what, _without(value, keys) if keys else value)


def shown_messages(request: HttpRequest, batch: Batch, messages: JSON) -> list[ErrorMessage]:
    """Return a row's messages, stored or none, as a person may see them; what is left of none is hidden whole."""
    if not messages:
        return []
    try:
        return [_read(message) for message in shown(request, batch, "messages", messages)]
    except (AttributeError, KeyError, TypeError):
        return [ErrorMessage(MASK)]


def shown_lines(request: HttpRequest, batch: Batch, output_lines: Mapping[str, str]) -> dict[str, str]:
    """
    Return what a row gave to output files, by their names, as a person may see it.

    The texts have no keys to go by: where anything is masked they are for those who may see inputs or download the
    files.
    """
    is_masked = settings.MASK_KEYS or settings.MASK_WITH
    may_see = any(permissions.may(request, name, batch) for name in (permissions.INPUT, permissions.DOWNLOAD))
    return {name: text if may_see or not is_masked else MASK for name, text in output_lines.items()}


def shown_text(request: HttpRequest, batch: Batch, text: str) -> str:
    """Return a text that may quote inputs as a person may see it: it has no keys to go by, so all or nothing of it."""
    is_masked = settings.MASK_KEYS or settings.MASK_WITH
    return MASK if is_masked and not permissions.may(request, permissions.INPUT, batch) else text


def _read(message: Mapping[str, Any]) -> ErrorMessage:
    """Return a message, some of whose parts may be masked."""
    masked = {"vals": [MASK]} if message.get("vals") == MASK else {}
    return ErrorMessage.from_json({**message, **masked, "msgid": message["msgid"] if message["msgid"] != MASK else 0})


def _without(value: JSON, keys: Collection[str]) -> JSON:
    """Return a copy of a value in which those keys of objects, at any depth, have lost their values."""
    copy = json.loads(json.dumps(value))
    # Not by recursion: what can be stored nests deeper than Python likes to call.
    nodes = [copy]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            node.update({key: MASK for key in node if key.casefold() in keys})
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node
    return copy


def _masked_by_project(batch: Batch, what: str, value: JSON) -> JSON:
    path = settings.MASK_WITH
    if path is None:
        return value
    mask: Any = import_string(path)
    try:
        return mask(value, what, batch.details(slots=()))
    except Exception as error:
        # Rather nothing than too much.
        logger.error("%s failed, so nothing of the payload is shown: %s", path, log_words.of_error(error))
        return MASK
