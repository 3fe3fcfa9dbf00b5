"""What is taken out of a batch with a browser, byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from playwright.sync_api import Download

from alya_django import Row, RowFailed, RowResult, batches, register_batch_processor
from alya_django.testing import drain
from tests.admin.pages import BATCHES, line_of, logged, page_of
from tests.browser.conftest import Visitor

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


NROWS = 2_000
FILE = "posted/Zürich €.csv"
BYTES = "".join(f"{line};Zürich\n" for line in range(1, NROWS)).encode()


def post(row: Row) -> RowResult:
    """Write a line for each row but the last, which fails."""
    if row.line == NROWS:
        raise RowFailed("closed", field="account")
    return RowResult.success(output_lines={FILE: f"{row.line};Zürich"})


@pytest.fixture
def ended(registry: Any, folder: Path) -> UUID:
    """A batch with an output file and a failed line."""
    register_batch_processor("bank", "post", post)
    batch_id = batches.submit("bank", "post", range(NROWS))
    drain()
    return batch_id


class DownloadTests:
    @pytest.mark.rule("ADM-5")
    @pytest.mark.parametrize("address", [page_of, line_of])
    def test_an_output_file_comes_as_it_is(
        self, address: Callable[[UUID], str], ended: UUID, visit: Callable[..., Visitor]
    ) -> None:
        """From the page of the batch and of a line, under its name, every byte of it; and it is logged."""
        visitor = visit("view_batch", "view_batchrow", "download_output")
        visitor.page.goto(address(ended))
        download = self.click(visitor, FILE)
        assert download.suggested_filename == "Zürich €.csv"
        assert Path(download.path()).read_bytes() == BYTES
        assert logged() == [f"Downloaded the output file {FILE}."]

    @pytest.mark.rule("ADM-5")
    def test_failed_lines_come_as_csv(self, ended: UUID, visit: Callable[..., Visitor]) -> None:
        """With what a person needs to find out why."""
        visitor = visit("view_batch", "download_output")
        visitor.page.goto(page_of(ended))
        download = self.click(visitor, "Failed lines (CSV)")
        header, line = Path(download.path()).read_text().splitlines()
        assert header == "line,errcode,field,values,attempts,done_by,done_at"
        assert line.startswith(f"{NROWS},closed,account,,1,")

    @pytest.mark.rule("ADM-1")
    def test_is_not_for_who_may_only_look(self, ended: UUID, visit: Callable[..., Visitor]) -> None:
        """The name of the file is there, a link is not, and its address is refused."""
        visitor = visit("view_batch", "view_batchrow")
        for address in (page_of(ended), line_of(ended)):
            visitor.page.goto(address)
            assert visitor.page.get_by_text(FILE).count() > 0
            assert visitor.page.get_by_role("link", name=FILE).count() == 0
        assert visitor.status_of(f"{BATCHES}{ended}/output/?name={FILE}") == 403
        assert visitor.status_of(f"{BATCHES}{ended}/failed-lines/") == 403

    def click(self, visitor: Visitor, name: str) -> Download:
        with visitor.page.expect_download() as begun:
            visitor.page.get_by_role("link", name=name).click()
        return begun.value
