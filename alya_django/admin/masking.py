"""What of a payload a person may see: what the project masks stays hidden from whoever may not see inputs."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest
from django.utils.module_loading import import_string

from alya_django import log_words, masks
from alya_django.admin import permissions
from alya_django.answers import ErrorMessage
from alya_django.conf import settings
from alya_django.models import Batch
from alya_django.validation import JSON

logger = logging.getLogger("alya_django.admin")

MASK = masks.MASK
# What programs compare. Data that stands in the place of it has blanks, or more digits than a code has.
ERRCODE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
DIGITS_MAX = 5


def shown(request: HttpRequest, batch: Batch, what: str, value: JSON) -> JSON:
    """
    Return a payload as a person may see it: as it is, or with what MASK_KEYS and MASK_WITH hide.

    Args:
        what: Which payload it is: ``input``, ``result``, ``messages`` or ``context``.
    """
    if value is None or not _hides(request, batch):
        return value
    return _masked_by_project(batch, what, masks.without_values(value))


def shown_messages(request: HttpRequest, batch: Batch, messages: JSON) -> list[ErrorMessage]:
    """
    Return a row's messages, stored or none, as a person may see them.

    Their values are shown where the message names the field that they are of, and that is not masked: else there is
    nothing to go by, as in the text of an exception. What is left of none is hidden whole.
    """
    if not messages:
        return []
    if _hides(request, batch):
        messages = shown(request, batch, "messages", list(map(_without_values, messages)))
    try:
        return [_read(message) for message in messages]
    except (AttributeError, KeyError, TypeError):
        return [ErrorMessage(MASK)]


def shown_errors(request: HttpRequest, batch: Batch, counts: Mapping[str, int]) -> dict[str, int]:
    """Return how many rows failed with each errcode, those together under MASK whose errcode is data and no code."""
    if not _hides(request, batch):
        return dict(counts)
    found: dict[str, int] = {}
    for errcode, count in counts.items():
        name = _code(errcode)
        found[name] = found.get(name, 0) + count
    return found


def shown_lines(request: HttpRequest, batch: Batch, output_lines: Mapping[str, str]) -> dict[str, str]:
    """
    Return what a row gave to output files, by their names, as a person may see it.

    The texts have no keys to go by: where anything is masked they are for those who may see inputs or download the
    files.
    """
    is_hidden = _hides(request, batch) and not permissions.may(request, permissions.DOWNLOAD, batch)
    return {name: MASK if is_hidden else text for name, text in output_lines.items()}


def shown_text(request: HttpRequest, batch: Batch | None, text: str) -> str:
    """Return a text that may quote inputs as a person may see it: it has no keys to go by, so all or nothing of it."""
    return MASK if text and _hides(request, batch) else text


def hides_texts(request: HttpRequest) -> bool:
    """Tell whether a person may not see what was found wrong in received files, each line of it a text."""
    return _hides(request, None)


def shown_sums(request: HttpRequest, batch: Batch, sums: Mapping[str, str]) -> dict[str, str]:
    """Return the sums that a file declares, by their fields, as a person may see them."""
    return {name: MASK if _hides(request, batch) and masks.covers(name) else value for name, value in sums.items()}


def shown_differences(request: HttpRequest, batch: Batch, differences: str) -> str:
    """Return in what a file's totals are not as declared, joined by semicolons, as a person may see it."""
    return masks.without_sums(differences) if _hides(request, batch) else differences


def _hides(request: HttpRequest, batch: Batch | None) -> bool:
    """Tell whether there is anything that a person may not see."""
    return masks.is_any() and not permissions.may(request, permissions.INPUT, batch)


def _without_values(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored message without values of which nobody knows, or that are masked, wherever they stand."""
    kept = dict(message)
    field = kept.get("field", "")
    if _has_many_digits(field):
        kept["field"] = MASK
    if kept.get("vals") and (masks.covers(field) or kept["field"] == MASK):
        kept["vals"] = [MASK]
    kept["errcode"] = _code(kept["errcode"])
    return kept


def _code(errcode: str) -> str:
    """Return an errcode if it is one; the empty one stands for all that are counted together."""
    is_code = not errcode or (ERRCODE.fullmatch(errcode) and not _has_many_digits(errcode))
    return errcode if is_code else MASK


def _has_many_digits(text: str) -> bool:
    return sum(map(str.isdigit, text)) > DIGITS_MAX


def _read(message: Mapping[str, Any]) -> ErrorMessage:
    """Return a message, some of whose parts may be masked."""
    masked = {"vals": [MASK]} if message.get("vals") == MASK else {}
    return ErrorMessage.from_json({**message, **masked, "msgid": message["msgid"] if message["msgid"] != MASK else 0})


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
