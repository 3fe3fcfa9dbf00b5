"""How amounts are written: in JSON and in files as text such as ``12.34``, everywhere else as whole cents."""

import re

AMOUNT = re.compile(r"([0-9]{1,12})(?:\.([0-9]{2}))?")


def to_cents(amount: object) -> int | None:
    """Return an amount in cents; None for what is no amount above zero."""
    match = AMOUNT.fullmatch(amount) if isinstance(amount, str) else None
    if match is None:
        return None
    whole, hundredths = match.groups(default="00")
    return int(whole + hundredths) or None


def to_text(cents: int) -> str:
    """Return cents as text."""
    whole, hundredths = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole}.{hundredths:02}"
