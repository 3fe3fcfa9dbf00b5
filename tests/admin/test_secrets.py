"""Every place of the pages where a payload can surface, who may see it there, and what the project masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.test import Client

from alya_django import (
    BadFile,
    BatchDetails,
    BatchInput,
    BatchProcessor,
    ControlTotals,
    ErrorMessage,
    FaultyLine,
    Row,
    RowFailed,
    RowResult,
    batches,
    register_batch_processor,
    register_file_checker,
    slow_queries,
)
from alya_django.admin.masking import MASK
from alya_django.answers import Receipt
from alya_django.intake import process, uploads
from alya_django.testing import drain
from tests.admin.pages import BATCHES, FILES, line_of, links, page_of, rows_of, table, text

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("folder")]

IBAN = "DE89370400440532013000"
OTHER = "not secret"
AMOUNT = "7070.70"
MASKS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "keys": {"MASK_KEYS": ["Iban", "salary"]},
    "function": {"MASK_WITH": f"{__name__}.hide_payloads"},
}
LINES = 7


def hide_payloads(value: Any, what: str, details: BatchDetails) -> Any:
    """Hide what a project knows to be a payload, and leave messages to Alya."""
    return value if what == "messages" else "hidden"


class Paying(BatchProcessor):
    """Fail each row in another way that quotes its input, and fail when all is done."""

    def do_batch_job(self, row: Row) -> RowResult:
        iban = row.input["iban"]
        match row.line:
            case 1:
                return RowResult.success({"iban": iban}, output_lines={"a.csv": iban})
            case 2:
                raise RowFailed("closed", field="creditor.iban", vals=(iban,))
            case 3:
                raise RowFailed("closed", vals=(iban,))
            case 4:
                raise RowFailed(f"no account {iban}")
            case 5:
                raise RowFailed(iban)
            case 6:
                raise RowFailed(ErrorMessage("closed", field=f"accounts[{iban}]"))
            case _:
                raise ValueError(f"no account {iban}")

    def mark_done(self, details: BatchDetails) -> None:
        raise ValueError(f"no account {details.context['iban']}")


def check(file: Any, file_name: str, context: Any) -> Iterator[Any]:
    """Find each kind of fault that quotes a file."""
    (iban,) = file.read().decode().split()
    if "refused" in file_name:
        raise BadFile(f"{iban} is no customer")
    if "totals" in file_name:
        yield ControlTotals(sums={"salary": AMOUNT})
    yield FaultyLine(1, f"{iban} is no customer")
    yield BatchInput(2, {"iban": iban, "salary": "1.00"})
    if "broken" in file_name and not context:
        raise ValueError(iban)


@dataclass(frozen=True)
class World:
    """What there is to look at."""

    batch: UUID
    query: UUID
    accepted: Receipt
    rejected: Receipt
    uploads: dict[str, UUID]

    def addresses(self) -> dict[str, str]:
        """Return where payloads can surface, by what is there."""
        lines = {f"line {line}": line_of(self.batch, line) for line in range(1, LINES + 1)}
        return {
            **lines,
            "rows": rows_of(self.batch),
            "failed rows": rows_of(self.batch, status="failed"),
            "batch": page_of(self.batch),
            "failed lines": f"{BATCHES}{self.batch}/failed-lines/",
            "row of the slow query": line_of(self.query, 0),
            "batch with totals": page_of(str(self.accepted.batch_id)),
            "files": FILES,
            "rejected file": f"{FILES}{self.rejected.file_id}/change/",
            "faults": f"{FILES}{self.accepted.file_id}/faults/",
            **{f"{name} upload": f"{BATCHES}upload/{token}/" for name, token in self.uploads.items()},
        }


def upload(file_name: str) -> UUID:
    """Keep an uploaded file."""
    token = uuid4()
    uploads.receive.keep(IBAN, file_name=file_name, file_type="payments", unique_key=uploads._key(token))
    return token


@pytest.fixture
def world(registry: Any) -> World:
    """A batch whose rows fail in every way, a slow query, files that were received, and uploads."""
    cache.clear()
    uploads.register()
    register_batch_processor("bank", "transfer", Paying)
    register_file_checker("payments", check, app="bank", op="transfer", upload=True, totals="salary")
    inputs = [{"iban": IBAN, "name": OTHER}] * LINES
    batch = batches.submit("bank", "transfer", inputs, context={"iban": IBAN})
    query = slow_queries.submit("bank", "none", {"iban": IBAN})
    accepted = process(file=IBAN, file_name="totals.txt", file_type="payments")
    rejected = process(file=f"{IBAN}\n", file_name="refused.txt", file_type="payments")
    drain(raise_errors=False)
    names = ("plain", "refused", "broken", "totals")
    return World(batch, query, accepted, rejected, {name: upload(f"{name}.txt") for name in names})


LOOK = ("view_batch", "view_batchrow", "view_batchfile", "submit_batch")
DOWNLOADS = ("failed lines", "faults")


@pytest.fixture
def look(world: World) -> Callable[..., dict[str, str]]:
    """Have somebody with some more permissions look at every place, and return what is there."""

    def client(*codenames: str) -> Client:
        user = User.objects.create_user(f"viewer {codenames}", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    def look_everywhere(*more: str) -> dict[str, str]:
        # Who may download sees what rows gave to the files.
        viewer, downloader = client(*LOOK, *more), client(*LOOK, "download_output", *more)
        return {
            name: content((downloader if name in DOWNLOADS else viewer).get(address))
            for name, address in world.addresses().items()
        }

    return look_everywhere


def content(response: Any) -> str:
    """Return what an answer has, downloaded or not."""
    assert response.status_code == 200, response
    data = b"".join(response.streaming_content) if response.streaming else response.content
    return data.decode()


class SecretTests:
    @pytest.mark.rule("SEC-31")
    @pytest.mark.parametrize("masks", MASKS)
    @pytest.mark.parametrize("more", [(), ("view_input",)], ids=["viewer", "view_input"])
    def test_are_where_the_project_wants_them(self, masks: str, more: Any, look: Any, settings: Any) -> None:
        """Where anything is masked, no place has the payload for those who may not see inputs; else all have."""
        settings.ALYA = MASKS[masks]
        texts = look(*more)
        found = {name for name, text in texts.items() if IBAN in text or AMOUNT in text}
        assert found == (set() if MASKS[masks] and not more else set(texts))

    @pytest.mark.rule("SEC-31")
    def test_leave_the_lines_that_they_stand_in(self, look: Any, settings: Any) -> None:
        """Who may not see why still sees which, and how many."""
        settings.ALYA = MASKS["keys"]
        texts = look()
        lines = [line.split(",")[:2] for line in texts["failed lines"].splitlines()[1:]]
        codes = ["closed", "closed", MASK, MASK, "closed", "processing_error"]
        assert lines == [[str(line), code] for line, code in enumerate(codes, 2)]
        assert texts["faults"].splitlines() == ["line,reason", f"1,{MASK}"]

    @pytest.mark.rule("SEC-32")
    def test_cannot_be_asked_for_by_their_errcode(self, world: World, staff_client: Any, settings: Any) -> None:
        """An errcode that is no word is counted with the others of its kind, and finds nothing."""
        settings.ALYA = MASKS["keys"]
        client = staff_client(*LOOK)
        for errcode in (IBAN, f"no account {IBAN}", MASK):
            assert table(client.get(rows_of(world.batch, errcode=errcode))) == []
        assert len(table(client.get(rows_of(world.batch, errcode="closed")))) == 3
        assert f"{MASK} 2" in text(client.get(page_of(world.batch)))
        assert f"{MASK} 2" in text(client.get(rows_of(world.batch)))
        assert MASK not in links(client.get(page_of(world.batch)))
