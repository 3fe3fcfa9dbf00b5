"""Text that would be shown in another order than it is stored in, on every page and in every download for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.test import Client

from alya_django import (
    BadFile,
    BatchInput,
    FaultyLine,
    Row,
    RowFailed,
    RowResult,
    batches,
    register_batch_processor,
    register_file_checker,
)
from alya_django.answers import Receipt
from alya_django.intake import process, uploads
from alya_django.testing import drain
from tests.admin.pages import BATCHES, FILES, act_of, line_of, page_of, rows_of
from tests.management.operators import run

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("folder")]

TURNED = "\u202e2001"
SHOWN = r"\u202e2001"
NAME = f"{TURNED}.txt"


def check(file: Any, file_name: str, context: Any) -> Iterator[Any]:
    content = file.read().decode()
    if "refuse" in content:
        raise BadFile(f"{TURNED} is no customer")
    yield FaultyLine(1, f"{TURNED} is no customer")
    yield BatchInput(2, {"account": content})


def pay(row: Row) -> RowResult:
    if row.line == 2:
        raise RowFailed(TURNED, field=TURNED, vals=(TURNED,))
    return RowResult.success({"account": TURNED}, output_lines={NAME: TURNED})


@pytest.fixture
def accepted(registry: Any) -> Receipt:
    """A file with a faulty line, whose only row has failed."""
    cache.clear()
    uploads.register()
    register_batch_processor("bank", "transfer", pay)
    register_file_checker("payments", check, app="bank", op="transfer", upload=True)
    receipt = process(file=TURNED, file_name=NAME, file_type="payments", context={"account": TURNED})
    batches.submit("bank", "transfer", [{"account": TURNED}], requested_by=TURNED, input_file=NAME)
    drain()
    return receipt


@pytest.fixture
def places(accepted: Receipt) -> dict[str, str]:
    """The address of every page and download that shows texts of others."""
    batch, file = accepted.batch_id, f"{FILES}{accepted.file_id}/"
    rejected = process(file=f"refuse {TURNED}", file_name=NAME, file_type="payments")
    token = uuid4()
    uploads.receive.keep(TURNED, file_name=NAME, file_type="payments", unique_key=uploads._key(token))
    written = next(one.id for one in batches.recent("bank", days=1) if one.output_files)
    return {
        "list": BATCHES,
        "batch": page_of(batch),
        "output files": page_of(written),
        "history": f"{BATCHES}{batch}/history/",
        "question": act_of(batch, "retry"),
        "rows": rows_of(batch),
        "line": line_of(batch, 2),
        "output lines": line_of(written, 1),
        "failed lines": f"{BATCHES}{batch}/failed-lines/",
        "files": FILES,
        "file": f"{file}change/",
        "history of the file": f"{file}history/",
        "faults": f"{file}faults/",
        "rejected file": f"{FILES}{rejected.file_id}/change/",
        "upload": f"{BATCHES}upload/{token}/",
        "index": "/admin/",
    }


class PageTests:
    @pytest.mark.rule("SEC-33")
    def test_show_what_is_stored(self, places: dict[str, str], admin_client: Client, accepted: Receipt) -> None:
        """Wherever such a text stands its first character is written out."""
        admin_client.post(act_of(accepted.batch_id, "retry"), {"confirmed": "yes", "reason": TURNED})
        b"".join(admin_client.get(places["faults"]).streaming_content)
        seen = {name: _content(admin_client.get(address)) for name, address in places.items()}
        assert [name for name, text in seen.items() if "\u202e" in text] == []
        assert [name for name, text in seen.items() if SHOWN not in text] == []


class CommandTests:
    @pytest.mark.rule("SEC-33")
    def test_print_what_is_stored(self, accepted: Receipt, tmp_path: Any) -> None:
        """Names, reasons and complaints alike."""
        (tmp_path / NAME).write_text(f"{TURNED}\n")
        (tmp_path / f"refused {NAME}").write_text(f"refuse {TURNED}\n")
        endings = [
            run("alya_status", str(accepted.batch_id)),
            run("alya_submit", str(tmp_path / NAME), "--type", "payments"),
            run("alya_submit", str(tmp_path / f"refused {NAME}"), "--type", "payments"),
            run("alya_submit", str(tmp_path / f"none {NAME}"), "--type", "payments"),
        ]
        for ending in endings:
            assert "\u202e" not in ending.out + ending.complaint
            assert SHOWN in ending.out + ending.complaint


def _content(response: Any) -> str:
    assert response.status_code == 200, response
    data = b"".join(response.streaming_content) if response.streaming else response.content
    return data.decode()
