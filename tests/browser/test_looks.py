"""How the pages look: to everybody, in every state, wide and narrow, light and dark, from either side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from alya_django import batches
from tests.admin.pages import BATCHES, WORKERS, act_of, line_of, page_of, rows_of
from tests.browser.conftest import NARROW, WIDE, Visitor
from tests.browser.samples import add_many

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def addresses(ids: dict[str, UUID]) -> dict[str, str]:
    """Return every kind of page, by a name for its picture."""
    return {
        "list": BATCHES,
        "empty": f"{BATCHES}?q=nothing",
        **{name: page_of(batch_id) for name, batch_id in ids.items()},
        "abort": act_of(ids["running"], "abort"),
        "history": f"{BATCHES}{ids['asked']}/history/",
        "rows": rows_of(ids["failed"]),
        "rows-of-none": rows_of(ids["failed"], status="aborted"),
        "line": line_of(ids["failed"], 1),
        "line-that-is-not": line_of(ids["failed"], 99),
        "workers": WORKERS,
    }


class LookTests:
    @pytest.mark.rule("ADM-6")
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [WIDE, NARROW])
    def test_is_seen_by_everybody(self, scheme: str, width: int, registry: Any, visit: Callable[..., Visitor]) -> None:
        """Contrast, names and structure satisfy WCAG 2.2 AA, light and dark, wide and narrow."""
        self.look_at_all(visit(color_scheme=scheme, viewport={"width": width, "height": 900}), f"{width}-{scheme}")

    @pytest.mark.rule("ADM-6")
    @pytest.mark.parametrize("width", [WIDE, NARROW])
    def test_is_read_from_right_to_left(
        self, width: int, registry: Any, settings: Any, visit: Callable[..., Visitor]
    ) -> None:
        """In a language that is written so, the pages are turned, and as good to read."""
        settings.LANGUAGE_CODE = "ar"
        visitor = visit(viewport={"width": width, "height": 900})
        self.look_at_all(visitor, f"{width}-rtl")
        assert visitor.page.evaluate("getComputedStyle(document.querySelector('#content')).direction") == "rtl"

    def look_at_all(self, visitor: Visitor, suffix: str) -> None:
        ids = add_many()
        batches.retry(ids["failed"], lines=[3])
        for name, address in addresses(ids).items():
            visitor.page.goto(address)
            visitor.take_picture(f"{name}-{suffix}")
            visitor.check_access()
            visitor.check_width()
        # A line that is not there is not found, which the browser complains of.
        visitor.complaints.clear()
