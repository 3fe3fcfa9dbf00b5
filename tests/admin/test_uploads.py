from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client

from alya_django import (
    BatchInput,
    ControlTotals,
    FaultyLine,
    Route,
    Status,
    batches,
    register_batch_processor,
    register_file_checker,
    slow_queries,
)
from alya_django.admin import BatchAdmin
from alya_django.intake import process, read_csv, uploads
from alya_django.intake.uploads import Upload
from alya_django.models import Batch, BatchFile, Worker
from alya_django.status import Kind
from alya_django.testing import drain
from tests.admin.pages import BATCHES, links, text
from tests.forgeries import TEXTS, VALUES
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("folder")]

UPLOAD = f"{BATCHES}upload/"
CONTENT = b"debtor,amount\nann,1.00\nbob,x\ncid,3.00\n"
BIG = 12345678901234567890123
FEES, SALES = Route("bank", "fee"), Route("shop", "sale")


def check(file: Any, file_name: str, context: Any) -> Iterator[BatchInput | FaultyLine]:
    for row in read_csv(file):
        if isinstance(row, BatchInput) and row.input["amount"] == "x":
            row = FaultyLine(row.line, "'x' is no amount")
        yield row


def register(file_type: str = "payments", checker: Any = check, **options: Any) -> None:
    given = {"app": "bank", "op": "transfer", "upload": True, **options}
    register_file_checker(file_type, checker, **given)


def send(
    client: Client, content: bytes = CONTENT, *, name: str = "TXN 1.csv", file_type: str = "payments"
) -> HttpResponse:
    """Upload a file on the first page."""
    return client.post(UPLOAD, {"file_type": file_type, "file": SimpleUploadedFile(name, content)})


def page_of(response: HttpResponse) -> str:
    """Return the page that an upload leads to."""
    assert response.status_code == 302, text(response)
    return response["Location"]


def keep(client: Client, content: bytes = CONTENT, **options: str) -> str:
    """Upload a file, and return its page."""
    return page_of(send(client, content, **options))


def token_of(page: str) -> UUID:
    return UUID(page.rstrip("/").rpartition("/")[2])


def said(response: HttpResponse) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def logged() -> list[str]:
    return [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]


def cells(response: HttpResponse, heading: str) -> list[list[str]]:
    """Return a table of the page, by the id of its heading."""
    section = re.search(rf'aria-labelledby="{heading}">(.*?)</section>', response.content.decode(), re.DOTALL)
    assert section
    rows = re.findall(r"<tr>(.*?)</tr>", section[1], re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]


@pytest.fixture(autouse=True)
def _registered(registry: Any) -> None:
    """A type of files that may be uploaded, what loads them, and what processes their rows."""
    cache.clear()
    uploads.register()
    register(label="Payments", help_text="As the core system writes them.")
    register_batch_processor("bank", "transfer", echo)


class ChooseTests:
    @pytest.mark.rule("ADM-47")
    def test_is_offered_on_the_list(self, admin_client: Client) -> None:
        """The list leads to it."""
        assert links(admin_client.get(BATCHES))["Upload a file"] == UPLOAD

    @pytest.mark.rule("ADM-47")
    def test_offers_the_types_that_allow_it(self, admin_client: Client) -> None:
        """By their labels or names, with what should be known of them."""
        register("fees", app="shop", op="fee")
        register("secret", upload=False)
        shown = text(admin_client.get(UPLOAD))
        assert "Payments bank / transfer As the core system writes them." in shown
        assert "fees shop / fee" in shown
        assert "secret" not in shown
        assert "At most 1.9\xa0GB.".replace("\xa0", " ") in shown.replace("\xa0", " ")

    @pytest.mark.rule("ADM-47")
    def test_offers_nothing_to_who_may_not_submit(self, staff_client: Callable[..., Client]) -> None:
        """Neither the link nor the page, and no file is taken."""
        client = staff_client("view_batch")
        assert "Upload a file" not in links(client.get(BATCHES))
        assert client.get(UPLOAD).status_code == 403
        assert send(client).status_code == 403
        assert not BatchFile.objects.exists()

    @pytest.mark.rule("ADM-2", "ADM-47")
    def test_offers_only_what_is_in_scope(self, admin_client: Client, settings: Any) -> None:
        """A type of another app is as if it were not there, also to who names it."""
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.only_bank"}
        register("fees", app="shop", op="fee")
        assert "fees" not in text(admin_client.get(UPLOAD))
        shown = text(send(admin_client, file_type="fees"))
        assert "Select a valid choice. fees is not one of the available choices." in shown
        assert not BatchFile.objects.exists()

    @pytest.mark.rule("ADM-47")
    def test_says_that_there_is_nothing_to_choose(
        self, admin_client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where no type of the person's apps allows it, there is no link, and the page says so."""
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.nothing"}
        assert "Upload a file" not in links(admin_client.get(BATCHES))
        assert "There is no type of files that you may upload." in text(admin_client.get(UPLOAD))

    def test_keeps_what_was_chosen(self, admin_client: Client) -> None:
        """The only type is chosen at once, and a choice outlives a mistake."""
        assert 'value="payments" required checked' in admin_client.get(UPLOAD).content.decode()
        register("fees")
        assert " checked" not in admin_client.get(UPLOAD).content.decode()
        again = admin_client.post(UPLOAD, {"file_type": "fees"})
        assert 'value="fees" required checked' in again.content.decode()
        assert "This field is required." in text(again)


class LimitTests:
    """What is not let in."""

    @pytest.mark.rule("ADM-48")
    def test_what_is_too_large(self, admin_client: Client, settings: Any) -> None:
        """It is refused as it arrives, and neither stored nor remembered."""
        settings.ALYA = {"FILE_BYTES_MAX": len(CONTENT) - 1}
        assert "The file is larger than 37 bytes, the limit." in text(send(admin_client)).replace("\xa0", " ")
        assert not BatchFile.objects.exists()
        settings.ALYA = {"FILE_BYTES_MAX": len(CONTENT)}
        keep(admin_client)

    @pytest.mark.rule("ADM-56")
    def test_more_than_somebody_may_leave_undecided(
        self, admin_client: Client, staff_client: Callable[..., Client], settings: Any
    ) -> None:
        """The next is refused unread, and the page leads to those that wait; others are not kept from uploading."""
        settings.ALYA = {"UPLOADS_MAX": 2}
        first, second = (keep(admin_client, name=name) for name in ("1.csv", "2.csv"))
        process(file=CONTENT, file_name="by-api.csv", file_type="payments")
        refused = send(admin_client, name="3.csv")
        assert refused.status_code == 429
        assert refused.wsgi_request._read_started is False
        assert BatchFile.objects.filter(is_accepted=None).count() == 2
        page = admin_client.get(UPLOAD)
        assert [links(page)[name] for name in ("1.csv", "2.csv")] == [first, second]
        keep(staff_client("submit_batch"))
        admin_client.post(f"{first}discard/")
        keep(admin_client, name="3.csv")

    @pytest.mark.rule("ADM-56")
    def test_what_is_decided_counts_no_more(self, admin_client: Client, settings: Any) -> None:
        """A file that was rejected or loaded makes room for the next."""
        settings.ALYA = {"UPLOADS_MAX": 1}
        admin_client.post(f"{keep(admin_client)}confirm/")
        assert send(admin_client).status_code == 429
        drain()
        assert "✕ rejected" in text(admin_client.get(keep(admin_client, b"no,header\n", name="2.csv")))
        keep(admin_client, name="3.csv")

    @pytest.mark.rule("ADM-48")
    def test_what_is_too_large_in_pieces(self, admin_client: Client, settings: Any) -> None:
        """The limit is that of the request: many files under other names fill the disk no more than one."""
        settings.ALYA = {"FILE_BYTES_MAX": len(CONTENT)}
        others = {f"other-{number}": SimpleUploadedFile("o", b"x" * 10) for number in range(2)}
        file = SimpleUploadedFile("TXN 1.csv", CONTENT)
        refused = admin_client.post(UPLOAD, {**others, "file_type": "payments", "file": file})
        assert "The file is larger than 38 bytes, the limit." in text(refused).replace("\xa0", " ")
        assert not BatchFile.objects.exists()

    @pytest.mark.rule("ADM-48")
    def test_what_is_large_is_not_held_in_memory(self, admin_client: Client, settings: Any) -> None:
        """It goes to the storage by way of the disk."""
        settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 10
        assert "Found: 2 rows, 1 faulty line." in text(admin_client.get(keep(admin_client)))

    @pytest.mark.rule("ADM-48")
    def test_what_is_empty(self, admin_client: Client) -> None:
        """It is told at once."""
        assert "The submitted file is empty." in text(send(admin_client, b""))
        assert not BatchFile.objects.exists()

    def test_what_has_a_name_like_a_path(self, admin_client: Client) -> None:
        """Only its last part is the file's name."""
        page = keep(admin_client, name="../../etc/<b>passwd.csv")
        assert BatchFile.objects.get().file_name == "<b>passwd.csv"
        assert "<b>passwd" not in admin_client.get(page).content.decode()

    @pytest.mark.rule("ADM-48")
    def test_what_is_forged(self, admin_user: Any) -> None:
        """Every form needs the token that its page has given."""
        client = Client(enforce_csrf_checks=True)
        client.force_login(admin_user)
        assert send(client).status_code == 403
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', client.get(UPLOAD).content.decode())
        assert token
        data = {"csrfmiddlewaretoken": token[1], "file_type": "payments", "file": SimpleUploadedFile("a.csv", CONTENT)}
        page = page_of(client.post(UPLOAD, data))
        for act in ("confirm", "discard"):
            assert client.post(f"{page}{act}/").status_code == 403
        assert BatchFile.objects.get().is_accepted is None
        assert not Batch.objects.exists()


class PreviewTests:
    @pytest.mark.rule("ADM-49")
    def test_shows_the_file_and_what_is_in_it(self, admin_client: Client) -> None:
        """Name, size, type, who has brought it; the first rows and the faulty lines, and how much was looked at."""
        response = admin_client.get(keep(admin_client))
        shown = text(response).replace("\xa0", " ")
        assert "TXN 1.csv" in shown
        assert "○ not confirmed" in shown
        assert "size 38 bytes type Payments bank / transfer" in shown
        assert "by admin" in shown
        assert "The whole file was looked at. Found: 2 rows, 1 faulty line." in shown
        assert cells(response, "alya-rows") == [
            ["line", "debtor", "amount"],
            ["2", "ann", "1.00"],
            ["4", "cid", "3.00"],
        ]
        assert cells(response, "alya-faults") == [["line", "reason"], ["3", "&#x27;x&#x27; is no amount"]]
        assert not Batch.objects.exists()
        assert logged() == ["Uploaded the file."]

    @pytest.mark.rule("ADM-49")
    def test_is_the_same_when_it_is_loaded_anew(self, admin_client: Client) -> None:
        """By anybody who may submit, on any host: all that it needs is in the database and the storage."""
        page = keep(admin_client)
        first = admin_client.get(page)
        assert text(admin_client.get(page)) == text(first)

    @pytest.mark.rule("ADM-49")
    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("LINES_MAX", 2, "The first 2 lines were looked at, the others will be when the file is loaded."),
            ("BYTES_MAX", 10, "Only the first 10 bytes were looked at, the rest will be when the file is loaded."),
            ("SECONDS_MAX", 0, "Looking ended after 0 seconds, the rest will be looked at when the file is loaded."),
        ],
    )
    def test_says_how_much_was_looked_at(
        self, name: str, value: int, words: str, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Lines, bytes or seconds; what was not seen is not said to be good."""
        for module in ("alya_django.intake.preview", "alya_django.admin.upload_words"):
            monkeypatch.setattr(f"{module}.{name}", value)
        response = admin_client.get(keep(admin_client))
        assert words in text(response).replace("\xa0", " ")
        assert "Confirm" in response.content.decode()

    @pytest.mark.rule("ADM-49")
    def test_counts_the_faults_that_are_not_shown(self, admin_client: Client) -> None:
        """Twenty are shown."""
        response = admin_client.get(keep(admin_client, b"debtor,amount\nann,1\n" + b"bob,x\n" * 22))
        assert len(cells(response, "alya-faults")) == 21
        assert "2 more were found." in text(response)

    @pytest.mark.rule("ADM-49")
    def test_shows_what_the_file_declares(self, admin_client: Client) -> None:
        """And says where its rows are not so."""

        def declaring(*given: Any) -> Iterator[Any]:
            yield ControlTotals(count=3, sums={"amount": "4.00"})
            yield from check(*given)

        register("declaring", declaring, totals="amount")
        shown = text(admin_client.get(keep(admin_client, file_type="declaring")))
        assert "It declares: 3 rows, amount 4.00." in shown
        assert "These do not agree with its rows: 3 rows declared, 2 found." in shown

    @pytest.mark.rule("ADM-33", "ADM-49")
    def test_shows_values_as_they_are(self, admin_client: Client) -> None:
        """Escaped, every digit of a number, what is missing empty, what is long cut."""

        def odd(*given: Any) -> Iterator[Any]:
            yield BatchInput(1, {"a": BIG, "b": "<script>", "c": "x" * 3_000})
            yield BatchInput(2, {"a": None, "d": [1, "ü"]})

        register("odd", odd)
        head, first, second = cells(admin_client.get(keep(admin_client, file_type="odd")), "alya-rows")
        assert head == ["line", "a", "b", "c", "d"]
        assert first == ["1", str(BIG), "&lt;script&gt;", f"{'x' * 512}…", ""]
        assert second == ["2", "null", "", "", "[1, &quot;ü&quot;]"]

    @pytest.mark.rule("ADM-49")
    def test_shows_what_is_no_table_as_it_is(self, admin_client: Client) -> None:
        """Inputs that are no objects, or of too many fields, have one column."""

        def odd(*given: Any) -> Iterator[Any]:
            yield BatchInput(1, {f"f{number}": number for number in range(41)})
            yield BatchInput(2, ["é" * 2_000])

        register("odd", odd)
        head, first, second = cells(admin_client.get(keep(admin_client, file_type="odd")), "alya-rows")
        assert head == ["line", "input"]
        assert first[1].startswith("{&quot;f0&quot;: 0, ")
        assert len(second[1].replace("&quot;", '"').encode()) <= 2_048 + len("…".encode())

    @pytest.mark.rule("ADM-30", "ADM-49")
    def test_hides_what_is_masked(self, staff_client: Callable[..., Client], settings: Any) -> None:
        """From who may not see inputs: the keys that are named, and reasons, which may quote anything."""
        settings.ALYA = {"MASK_KEYS": ["debtor"]}
        client = staff_client("submit_batch")
        response = client.get(keep(client))
        assert cells(response, "alya-rows")[1] == ["2", "•••", "1.00"]
        assert cells(response, "alya-faults")[1] == ["3", "•••"]

    @pytest.mark.rule("ADM-31", "ADM-49")
    def test_hides_all_where_masking_fails(self, staff_client: Callable[..., Client], settings: Any) -> None:
        """Rather nothing than too much."""
        settings.ALYA = {"MASK_WITH": "tests.admin.test_uploads.fail_to_mask"}
        client = staff_client("submit_batch")
        assert cells(client.get(keep(client)), "alya-rows")[1] == ["2", "&quot;•••&quot;"]

    @pytest.mark.rule("ADM-50")
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"debtor,amount\n", "The file has no usable line."),
            (gzip.compress(CONTENT, mtime=0)[:-9], "The file cannot be unpacked: "),
            (b"debtor\nann\n", "The checker failed: KeyError: 'amount'"),
        ],
        ids=["nothing usable", "cut", "not understood"],
    )
    def test_says_why_a_file_cannot_be_read(self, content: bytes, reason: str, admin_client: Client) -> None:
        """It is rejected at once, in the words of who found out; its bytes are kept, and nothing can be confirmed."""
        page = keep(admin_client, content)
        response = admin_client.get(page)
        assert "✕ rejected" in text(response)
        assert reason in text(response)
        assert "<form method" not in response.content.decode().partition('id="content-main"')[2]
        file = BatchFile.objects.get()
        assert (file.is_accepted, file.object_id[:7]) == (False, "failed/")
        assert links(response)["Upload another file"] == UPLOAD

    @pytest.mark.rule("ADM-50")
    def test_says_that_the_same_was_accepted_before(self, admin_client: Client) -> None:
        """It leads to that batch, and cannot be confirmed."""
        receipt = process(file=CONTENT, file_name="first.csv", file_type="payments")
        page = keep(admin_client)
        response = admin_client.get(page)
        assert "the same content was accepted before, as first.csv, received " in text(response)
        assert links(response)["See that batch"] == f"{BATCHES}{receipt.batch_id}/change/"
        admin_client.post(f"{page}confirm/")
        assert not Batch.objects.filter(app="alya").exists()

    @pytest.mark.rule("ADM-16")
    def test_names_no_file_of_a_batch_that_is_hidden(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It says no more than that the same was accepted."""
        process(file=CONTENT, file_name="first.csv", file_type="payments")
        page = keep(admin_client)
        monkeypatch.setattr(BatchAdmin, "get_queryset", lambda pages, request: Batch.objects.none())
        response = admin_client.get(page)
        assert "the same content was accepted before." in text(response)
        assert "first.csv" not in text(response)
        assert "See that batch" not in links(response)

    def test_can_only_be_discarded_where_no_checker_is_left(self, admin_client: Client, registry: Any) -> None:
        """A type that is no longer registered cannot be loaded; who is limited to apps does not see it."""
        page = keep(admin_client)
        BatchFile.objects.update(file_type="gone")
        assert "No checker reads files of this type any more." in text(admin_client.get(page))
        admin_client.post(f"{page}confirm/")
        assert not Batch.objects.exists()
        admin_client.post(f"{page}discard/")
        assert not BatchFile.objects.exists()

    def test_is_nobody_elses(self, admin_client: Client, settings: Any) -> None:
        """What is out of scope, and what is not there, are not found."""
        page = keep(admin_client)
        assert admin_client.get(f"{UPLOAD}{uuid4()}/").status_code == 404
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.nothing"}
        assert admin_client.get(page).status_code == 404


class RouteTests:
    """A type whose checker says which app and op a file is for."""

    @pytest.fixture(autouse=True)
    def _by_content(self) -> None:
        def by_first_line(file: Any, file_name: str, context: Any) -> Iterator[Route | BatchInput]:
            yield FEES if file.readline() == b"fee\n" else SALES
            yield BatchInput(1, {})

        register("orders", by_first_line, app=None, op=None, routes=[FEES, SALES])

    @pytest.mark.rule("ADM-49")
    def test_is_shown_where_it_goes(self, admin_client: Client) -> None:
        """Where it may go before a file is chosen, and where it does before it is confirmed."""
        assert "orders bank / fee, shop / sale" in text(admin_client.get(UPLOAD))
        for content, said in ((b"fee\n", "bank / fee"), (b"sale\n", "shop / sale")):
            shown = text(admin_client.get(keep(admin_client, content, file_type="orders")))
            assert f"Its rows go to {said}." in shown
        assert "Its rows go to" not in text(admin_client.get(keep(admin_client)))

    @pytest.mark.rule("ADM-49", "FXR-34")
    def test_is_loaded_where_it_goes(self, admin_client: Client) -> None:
        """The batch is of the app and op that were shown."""
        page = keep(admin_client, b"sale\n", file_type="orders")
        admin_client.post(f"{page}confirm/")
        drain()
        assert list(Batch.objects.filter(kind=Kind.BATCH).values_list("app", "op")) == [("shop", "sale")]

    @pytest.mark.rule("ADM-2", "ADM-47")
    def test_is_for_those_who_see_all_its_apps(self, admin_client: Client, settings: Any) -> None:
        """What a file is for shows only once it is read: who sees one of two apps can bring nothing for the other."""
        page = keep(admin_client, b"fee\n", file_type="orders")
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.only_bank"}
        assert "orders" not in text(admin_client.get(UPLOAD))
        assert "is not one of the available choices" in text(send(admin_client, b"sale\n", file_type="orders"))
        assert admin_client.get(page).status_code == 404
        assert admin_client.post(f"{page}confirm/").status_code == 404
        assert admin_client.post(f"{page}discard/").status_code == 404
        assert admin_client.get(f"{UPLOAD}progress/", {"ids": token_of(page)}).json() == {"batches": {}}
        assert not Batch.objects.exists()


class ConfirmTests:
    @pytest.mark.rule("ADM-51")
    def test_has_the_file_loaded(self, admin_client: Client) -> None:
        """A worker makes a batch of it, which waits; the page leads there, and the history has the reason."""
        page = keep(admin_client)
        response = admin_client.post(f"{page}confirm/", {"reason": "salaries of November"})
        assert page_of(response) == page
        assert logged() == ["Uploaded the file.", "Confirmed the upload. (salaries of November)"]
        assert "◔ waiting for a worker" in text(admin_client.get(page))
        drain()
        batch = Batch.objects.get(app="bank")
        assert (batch.status, batch.requested_by) == (Status.WAIT, "admin")
        done = admin_client.get(page)
        assert "It has become a batch of 2 rows. 1 faulty line was left out." in text(done)
        assert "The batch waits until somebody releases it." in text(done)
        assert links(done)["Go to the batch"] == f"{BATCHES}{batch.pk}/change/"
        assert links(done)["Faulty lines and reasons (CSV)"].endswith("/faults/")
        batches.release(batch.pk)
        assert "waits until" not in text(admin_client.get(page))
        check_invariants()

    @pytest.mark.rule("ADM-51")
    def test_is_done_once(self, admin_client: Client, staff_client: Callable[..., Client]) -> None:
        """A double click, a second thought and a second person come too late, and are told."""
        page = keep(admin_client)
        admin_client.post(f"{page}confirm/")
        for client in (admin_client, staff_client("submit_batch")):
            assert said(client.post(f"{page}confirm/")) == ["TXN 1.csv was confirmed before."]
        drain()
        assert said(admin_client.post(f"{page}confirm/")) == ["TXN 1.csv was confirmed before."] * 2
        assert Batch.objects.filter(app="alya").count() == 1
        assert Batch.objects.filter(app="bank").count() == 1
        assert logged().count("Confirmed the upload.") == 1

    @pytest.mark.rule("ADM-55")
    def test_a_project_can_ask_for_a_second_person(
        self, admin_client: Client, staff_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who has brought a file is told so and refused; the next one is not."""

        def by_another(pages: BatchAdmin, request: Any, upload: Upload | None = None) -> bool:
            return upload is None or upload.uploaded_by != request.user.get_username()

        monkeypatch.setattr(BatchAdmin, "has_confirm_permission", by_another)
        page, other = keep(admin_client), staff_client("submit_batch")
        own = admin_client.get(page)
        assert "Somebody else must confirm it." in text(own)
        assert f"{page}confirm/" not in own.content.decode()
        assert admin_client.post(f"{page}confirm/").status_code == 403
        assert not Batch.objects.filter(app="alya").exists()
        assert logged() == ["Uploaded the file."]
        assert f"{page}confirm/" in other.get(page).content.decode()
        assert page_of(other.post(f"{page}confirm/")) == page
        assert Batch.objects.get(app="alya").requested_by == "viewer"

    @pytest.mark.rule("ADM-55")
    def test_whoever_may_upload_may_confirm(self, admin_client: Client, staff_client: Callable[..., Client]) -> None:
        """Nobody else need do it, unless the project says so."""
        page = keep(staff_client("submit_batch"))
        assert f"{page}confirm/" in admin_client.get(page).content.decode()

    @pytest.mark.rule("ADM-51")
    def test_is_undone_if_it_cannot_be_logged(self, admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is loaded without its entry in the log."""
        page = keep(admin_client)

        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("the log is full")

        monkeypatch.setattr("alya_django.admin.audit.LogEntry.objects.log_actions", fail)
        with pytest.raises(RuntimeError):
            admin_client.post(f"{page}confirm/")
        assert not Batch.objects.exists()
        with pytest.raises(RuntimeError):
            admin_client.post(f"{page}discard/")
        assert BatchFile.objects.count() == 1

    def test_takes_no_reason_that_is_too_long_to_keep(self, admin_client: Client) -> None:
        """The page is shown again, with what was written."""
        page = keep(admin_client)
        response = admin_client.post(f"{page}confirm/", {"reason": "x" * 301})
        assert "Ensure this value has at most 300 characters (it has 301)." in text(response)
        assert "x" * 301 in response.content.decode()
        assert not Batch.objects.exists()

    @pytest.mark.rule("ADM-51")
    def test_needs_the_permission(self, admin_client: Client, staff_client: Callable[..., Client]) -> None:
        """To look at the page, to confirm and to discard."""
        page = keep(admin_client)
        client = staff_client("view_batch", "release_batch", "download_output", "view_input")
        assert client.get(page).status_code == 403
        assert client.get(f"{UPLOAD}progress/", {"ids": token_of(page)}).status_code == 403
        for act in ("confirm", "discard"):
            assert client.post(f"{page}{act}/").status_code == 403
            assert admin_client.get(f"{page}{act}/").status_code == 405
        assert not Batch.objects.exists()
        assert BatchFile.objects.count() == 1

    @pytest.mark.rule("ADM-4", "ADM-51")
    def test_shows_only_what_is_permitted(self, staff_client: Callable[..., Client]) -> None:
        """Who may only submit is told what became of the file, and not led to pages that are closed."""
        client = staff_client("submit_batch")
        page = keep(client)
        client.post(f"{page}confirm/")
        drain()
        response = client.get(page)
        assert "It has become a batch of 2 rows." in text(response)
        found = links(response)
        assert not {"Go to the batch", "Faulty lines and reasons (CSV)", "History", "What is kept of it"} & set(found)

    def test_says_nothing_of_faults_where_there_are_none(self, admin_client: Client) -> None:
        """Neither before nor after."""
        page = keep(admin_client, b"debtor,amount\nann,1.00\n")
        assert "Faulty lines" not in text(admin_client.get(page))
        admin_client.post(f"{page}confirm/")
        drain()
        shown = text(admin_client.get(page))
        assert "It has become a batch of 1 row." in shown
        assert "faulty" not in shown.lower()

    @pytest.mark.rule("ADM-51")
    def test_says_why_a_file_is_rejected_after_all(self, admin_client: Client) -> None:
        """What only the whole file tells is told when it was read."""

        def late(file: Any, file_name: str, context: Any) -> Iterator[Any]:
            yield from (BatchInput(number, {}) for number in range(1, 1_002))
            yield FaultyLine(1_002, "is bad")
            raise ValueError("line 1003 is a mystery")

        register("late", late)
        page = keep(admin_client, file_type="late")
        admin_client.post(f"{page}confirm/")
        drain()
        response = admin_client.get(page)
        assert "The checker failed: ValueError: line 1003 is a mystery" in text(response)
        faults = admin_client.get(links(response)["Faulty lines and reasons (CSV)"])
        assert b"".join(faults.streaming_content) == b"line,reason\n1002,is bad\n"
        assert not Batch.objects.filter(app="bank").exists()

    def test_shows_totals_that_do_not_agree(self, admin_client: Client) -> None:
        """The batch waits for somebody to look at it, and the page says why."""

        def declaring(*given: Any) -> Iterator[Any]:
            yield ControlTotals(count=3)
            yield from check(*given)

        register("declaring", declaring)
        page = keep(admin_client, file_type="declaring")
        admin_client.post(f"{page}confirm/")
        drain()
        shown = text(admin_client.get(page))
        assert "Its totals do not agree: 3 rows declared, 2 received; faulty lines: 1" in shown


class FailureTests:
    """Where loading comes to nothing, and the file is as it was."""

    @pytest.mark.rule("ADM-52")
    def test_is_told_and_can_be_repeated(self, admin_client: Client, settings: Any, folder: Any) -> None:
        """A storage that was away too long is no fault of the file."""
        settings.ALYA = {"MAX_ATTEMPTS": 1}
        page = keep(admin_client)
        admin_client.post(f"{page}confirm/")
        hidden = folder.with_name("hidden")
        folder.rename(hidden)
        drain(raise_errors=False)
        hidden.rename(folder)
        shown = text(admin_client.get(page))
        assert "⊘ not loaded" in shown
        assert "Loading came to nothing: " in shown
        admin_client.post(f"{page}confirm/")
        drain()
        assert BatchFile.objects.get().is_accepted

    @pytest.mark.rule("ADM-52")
    def test_is_told_where_somebody_aborted_it(self, admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """And it is told where it was tried too often."""
        monkeypatch.setattr(uploads, "LOADS_MAX", 1)
        page = keep(admin_client)
        admin_client.post(f"{page}confirm/")
        slow_queries.abort(Batch.objects.get().pk)
        assert "Loading came to nothing: It was aborted." in text(admin_client.get(page))
        response = admin_client.post(f"{page}confirm/")
        assert said(response) == ["upload: was loaded in vain 1 times; upload the file once more."]

    @pytest.mark.rule("ADM-8", "ADM-52")
    def test_says_that_nobody_is_there_to_load_it(self, admin_client: Client) -> None:
        """Until a worker is."""
        page = keep(admin_client)
        admin_client.post(f"{page}confirm/")
        warning = "No live worker serves alya / load: start one that does."
        assert warning in text(admin_client.get(page))
        Worker.objects.create(name="w", host="h", pid=1, version="1", ops=[["Q", "alya", "load"]])
        assert warning not in text(admin_client.get(page))


class DiscardTests:
    @pytest.mark.rule("ADM-53")
    def test_deletes_the_file(self, admin_client: Client, folder: Any) -> None:
        """With its bytes; the log has it, and the page of uploads says so."""
        page = keep(admin_client)
        response = admin_client.post(f"{page}discard/")
        assert page_of(response) == UPLOAD
        assert said(response) == ["TXN 1.csv was discarded."]
        assert logged() == ["Uploaded the file.", "Discarded the upload."]
        assert not BatchFile.objects.exists()
        assert not [path for path in folder.rglob("*") if path.is_file()]
        assert admin_client.get(page).status_code == 404

    @pytest.mark.rule("ADM-53")
    def test_comes_too_late_for_what_was_confirmed(self, admin_client: Client) -> None:
        """It is told, and nothing is deleted."""
        page = keep(admin_client)
        admin_client.post(f"{page}confirm/")
        response = admin_client.post(f"{page}discard/")
        assert page_of(response) == page
        assert said(response) == ["TXN 1.csv was confirmed or discarded before."]
        drain()
        assert BatchFile.objects.get().is_accepted


class ProgressTests:
    def ask(self, client: Client, ids: object) -> Any:
        response = client.get(f"{UPLOAD}progress/", {"ids": str(ids)})
        assert "no-cache" in response["Cache-Control"]
        return response.json()["batches"]

    @pytest.fixture
    def loading(self, admin_client: Client) -> str:
        """The page of a file of 38 bytes that a worker has in hand."""
        page = keep(admin_client)
        admin_client.post(f"{page}confirm/")
        Batch.objects.update(status=Status.IN_PROGRESS)
        return page

    @pytest.mark.rule("ADM-54")
    def test_says_how_far_it_was_read(self, loading: str, admin_client: Client) -> None:
        """In the words of the page, which renews them."""
        token, file = token_of(loading), BatchFile.objects.get()
        cache.set(f"ALYA_{{{file.pk}}}_LOADED", 19)
        assert self.ask(admin_client, token) == {
            str(token): {
                "final": False,
                "look": "inprog",
                "value": 19,
                "max": 38,
                "texts": {
                    "icon": "▶",
                    "state": "loading",
                    "share": "50.0\xa0%",
                    "amount": "19\xa0bytes\xa0of\xa038\xa0bytes\xa0read",
                },
            }
        }
        shown = admin_client.get(loading)
        assert "▶ loading 50.0\xa0%".replace("\xa0", " ") in text(shown).replace("\xa0", " ")
        assert 'value="19" max="38"' in shown.content.decode()

    @pytest.mark.rule("ADM-54")
    def test_says_that_it_does_not_know(self, loading: str, admin_client: Client) -> None:
        """Where the worker and the site share no cache."""
        (answer,) = self.ask(admin_client, token_of(loading)).values()
        assert answer["texts"] == {
            "icon": "▶",
            "state": "loading",
            "share": "",
            "amount": "How far it has come is not known.",
        }

    @pytest.mark.rule("ADM-54")
    def test_ends_when_it_is_decided(self, admin_client: Client) -> None:
        """Then the page is loaded anew."""
        page = keep(admin_client)
        admin_client.post(f"{page}confirm/")
        drain()
        (answer,) = self.ask(admin_client, token_of(page)).values()
        assert (answer["final"], answer["look"]) == (True, "success")

    @pytest.mark.rule("SEC-2")
    @pytest.mark.parametrize("left", [*VALUES.values(), *TEXTS.values()], ids=[*VALUES, *TEXTS])
    def test_says_no_nonsense(self, loading: str, admin_client: Client, left: Any) -> None:
        """Whatever stands in the cache, no more than all was read, and no less than nothing."""
        cache.set(f"ALYA_{{{BatchFile.objects.get().pk}}}_LOADED", left)
        (answer,) = self.ask(admin_client, token_of(loading)).values()
        assert 0 <= answer["value"] <= answer["max"]

    @pytest.mark.rule("ADM-2", "ADM-54")
    def test_tells_nothing_else(self, loading: str, admin_client: Client, settings: Any) -> None:
        """Of what is not there, is no id, or belongs to another app."""
        assert self.ask(admin_client, "") == {}
        assert self.ask(admin_client, uuid4()) == {}
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.nothing"}
        assert self.ask(admin_client, token_of(loading)) == {}


class PlanTests:
    @pytest.mark.rule("ADM-7")
    def test_no_page_asks_much(self, staff_client: Callable[..., Client], django_assert_max_num_queries: Any) -> None:
        """Twelve queries at most, whatever there is."""
        client = staff_client("view_batch", "view_batchfile", "submit_batch", "download_output", "view_input")
        process(file=b"debtor,amount\nzoe,1\n", file_name="first.csv", file_type="payments")
        with django_assert_max_num_queries(12):
            client.get(UPLOAD)
        page = keep(client)
        with django_assert_max_num_queries(12):
            client.get(page)
        client.post(f"{page}confirm/")
        with django_assert_max_num_queries(12):
            client.get(page)
        with django_assert_max_num_queries(12):
            client.get(f"{UPLOAD}progress/", {"ids": token_of(page)})
        drain()
        with django_assert_max_num_queries(12):
            client.get(page)


class FilePageTests:
    @pytest.mark.rule("ADM-71")
    def test_leads_to_the_upload(self, admin_client: Client) -> None:
        """An upload that nobody has confirmed is found again among the files."""
        page = keep(admin_client)
        file = BatchFile.objects.get()
        found = links(admin_client.get(f"/admin/alya_django/batchfile/{file.pk}/change/"))
        assert found[str(token_of(page))] == page
        other = process(file=b"debtor,amount\nzoe,1\n", file_name="first.csv", file_type="payments")
        shown = admin_client.get(f"/admin/alya_django/batchfile/{other.file_id}/change/")
        assert UPLOAD not in " ".join(links(shown).values())


def fail_to_mask(value: Any, what: str, details: Any) -> Any:
    raise RuntimeError
