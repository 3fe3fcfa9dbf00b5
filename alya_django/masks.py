"""What the project masks: keys of payloads, and with them what is said of the fields of that name."""

from __future__ import annotations

import json
import re

from alya_django.conf import settings
from alya_django.validation import JSON

MASK = "•••"
DIFFERENCE = re.compile(r"(.*): \S+ declared, \S+ \w+", re.DOTALL)


def is_any() -> bool:
    """Tell whether the project masks anything: then no text is to be trusted that may quote a payload."""
    return bool(settings.MASK_KEYS or settings.MASK_WITH)


def covers(field: str) -> bool:
    """Tell whether a field is masked, or may be: it has no name, or a function of the project decides."""
    if settings.MASK_WITH or not field:
        return True
    name = field.casefold()
    # The field may be a path, such as creditor.iban or accounts[0].iban.
    return any(re.search(rf"(?<!\w){re.escape(key)}(?!\w)", name) for key in _keys())


def without_values(value: JSON) -> JSON:
    """Return a copy of a payload in which the keys that are masked, at any depth, have lost their values."""
    keys = _keys()
    if not keys:
        return value
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


def without_sums(differences: str) -> str:
    """Return in what a file's totals are not as declared, joined by semicolons, without sums that are masked."""
    parts = []
    for part in differences.split("; "):
        found = DIFFERENCE.fullmatch(part)
        parts.append(f"{found[1]}: {MASK}" if found and covers(found[1]) else part)
    return "; ".join(parts)


def _keys() -> set[str]:
    return {key.casefold() for key in settings.MASK_KEYS}
