"""Every address of the admin, by every method, for everybody: what is secret is not told, and nothing is changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import Model
from django.db.models.functions import Now
from django.http import HttpRequest
from django.test import Client

from alya_django import (
    BadFile,
    BatchInput,
    FaultyLine,
    Row,
    RowFailed,
    RowResult,
    Status,
    batches,
    checkers,
    intake,
    own_queries,
    register_batch_processor,
    register_file_checker,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.admin import BatchAdmin, acts
from alya_django.intake import uploads
from alya_django.models import Batch, BatchErrors, BatchFile, BatchProgress, BatchRow, Worker
from alya_django.querysets import CLAIMS_PER_WORKER
from alya_django.status import Kind
from alya_django.testing import drain
from tests.admin.addresses import Address, walk
from tests.local_storage import files_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("registry")]

TABLES: list[type[Model]] = [Batch, BatchErrors, BatchFile, BatchProgress, BatchRow, Worker, LogEntry]
SERVED_NOWHERE = ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
METHODS = ("GET", "HEAD", "POST", *SERVED_NOWHERE)
STATUSES = {200, 302, 400, 403, 404, 405}

VIEWS = frozenset({"view_batch", "view_batchrow", "view_batchfile", "view_worker"})
ACTS = {act.name: act.permission for act in acts.ACTS}
OTHERS = frozenset({"submit_batch", "download_output", "view_input"})
ALL = VIEWS | OTHERS | set(ACTS.values())


@dataclass(frozen=True)
class Role:
    """Somebody who asks: with which permissions, for which apps, and what else Django knows of a person."""

    name: str
    permissions: frozenset[str] = frozenset()
    app: str = ""
    is_known: bool = True
    fields: dict[str, bool] = field(default_factory=lambda: {"is_staff": True})

    def may(self, *names: str) -> bool:
        """Tell whether the person has one of these permissions, on the site and for the app of what is planted."""
        may_enter = self.is_known and self.fields.get("is_staff", False) and self.fields.get("is_active", True)
        return may_enter and self.app in ("", "bank") and bool(self.permissions.intersection(names))

    def client(self) -> Client:
        client = Client()
        if self.is_known:
            person = User.objects.create_user(f"{self.name}@{self.app}", **self.fields)
            person.user_permissions.set(Permission.objects.filter(codename__in=self.permissions))
            client.force_login(person)
        return client


def roles() -> Iterator[Role]:
    yield Role("anonymous", is_known=False)
    yield Role("inactive", ALL, fields={"is_staff": True, "is_active": False})
    yield Role("customer", ALL, fields={"is_staff": False})
    yield Role("staff")
    for permission in sorted(ALL):
        yield Role(f"only {permission}", frozenset({permission}))
    yield Role("viewer", VIEWS)
    for permission in ("submit_batch", "download_output", "view_input"):
        yield Role(f"viewer with {permission}", VIEWS | {permission})
    yield Role("operator", VIEWS | set(ACTS.values()))
    yield Role("all but inputs", ALL - {"view_input"})
    yield Role("all of bank", ALL, app="bank")
    yield Role("all of shop", ALL, app="shop")
    yield Role("superuser of shop", ALL, app="shop", fields={"is_staff": True, "is_superuser": True})
    yield Role("superuser", ALL, fields={"is_staff": True, "is_superuser": True})


OF_ONE_PAGE = [
    Role("only view_batchrow", frozenset({"view_batchrow"})),
    Role("only view_batchfile", frozenset({"view_batchfile", "download_output", "view_input"})),
    Role("everything", ALL),
]


def apps_of(request: HttpRequest) -> list[str] | None:
    """Let people see the app that stands behind their names."""
    _, _, app = request.user.get_username().partition("@")
    return [app] if app else None


# What is planted, and who may read it.

INPUT, RESULT, CONTEXT, QUERY, ANSWER = "DE-input", "DE-result", "DE-context", "DE-query", "DE-answer"
WRITTEN, CAME, PREVIEWED = "DE-written", "DE-came", "DE-previewed"
VALUE, BROKEN, FAULT, REASON, MARK = "DE-value", "DE-broken", "DE-fault", "DE-reason", "DE-mark-done"
FILE, WHO, CODE = "batch-of-files", "somebody-known", "code-of-fault"


@dataclass(frozen=True)
class Secret:
    """A text that only those may see who have one of some permissions."""

    text: str
    needs: frozenset[str]


SECRETS = [
    *(Secret(text, frozenset({"view_input"})) for text in (INPUT, RESULT, CONTEXT, QUERY, ANSWER, PREVIEWED, CAME)),
    *(Secret(text, frozenset({"view_input"})) for text in (VALUE, BROKEN, FAULT, REASON, MARK)),
    Secret(WRITTEN, frozenset({"view_input", "download_output"})),
    *(Secret(text, VIEWS | OTHERS) for text in (FILE, WHO, CODE)),
]


def process(row: Row) -> RowResult:
    """Succeed, fail, or break, as the input says."""
    if row.input["do"] == "fail":
        raise RowFailed(CODE, field="iban", vals=(VALUE,))
    if row.input["do"] == "break":
        raise ZeroDivisionError(BROKEN)
    return RowResult.success({"iban": RESULT}, output_lines={"out.csv": WRITTEN})


def check(file: Any, file_name: str, context: dict[str, Any]) -> Iterator[Any]:
    """Make a row of each line, which has an account and what to do."""
    for line, content in enumerate(file, 1):
        iban, _, do = content.decode().strip().partition(",")
        yield BatchInput(line, {"iban": iban, "do": do}) if do else FaultyLine(line, f"{FAULT} is too short")
    if do == "reject":
        raise BadFile(f"{REASON} is wrong")


@pytest.fixture
def addresses(folder: Path, settings: Any) -> list[Address]:
    """The addresses of batches in several states, a slow query, files, uploads and a worker, all of the app bank."""
    settings.ALYA = {"MASK_KEYS": ["iban"], "ADMIN_SCOPE": f"{__name__}.apps_of"}
    register_batch_processor("bank", "transfer", process)
    register_slow_query_processor("bank", "report", lambda row: {"iban": ANSWER})
    register_file_checker("payments", check, app="bank", op="transfer", upload=True)
    uploads.register()
    ended, waiting, query, tokens = _batch(), _waiting(), _slow_query(), _uploads()
    files = BatchFile.objects.exclude(is_accepted=None).values_list("pk", flat=True)
    arguments: dict[str, dict[str, list[Any]]] = {
        "": {
            "app_label": ["alya_django/"],
            "content_type_id": [ContentType.objects.get_for_model(Batch).pk],
            "object_id": [ended],
            "url": ["somewhere"],
        },
        "batch": {
            "object_id": [ended, waiting, query],
            "batch_id": [ended, query],
            "line": [0, 1, 2],
            "token": tokens,
        },
        "batchrow": {"object_id": [BatchRow.objects.get(batch=ended, line=2).pk]},
        "batchfile": {"object_id": list(files)},
        "worker": {"object_id": [_worker(ended).pk]},
    }
    queries = {
        "autocomplete": "app_label=alya_django&model_name=batchrow&field_name=batch",
        "alya_django_batch_progress": f"ids={ended},{waiting},{query}",
        "alya_django_batch_find_line": "line=1",
        "alya_django_batch_output": "name=out.csv",
        "alya_django_batch_upload_progress": f"ids={tokens[0]}",
        "alya_django_batchrow_changelist": f"batch={ended}",
    }
    return walk(arguments, queries)


def _batch() -> UUID:
    """Return a batch that has ended, with rows of all kinds; it came as a file, and has a retry."""
    came = "".join(f"{INPUT},{do}\n" for do in ("succeed", "fail", "break"))
    receipt = intake.process(
        file=f"{came}{CAME}\n".encode(),
        file_name=f"{FILE}.csv",
        file_type="payments",
        context={"iban": CONTEXT},
        requested_by=WHO,
    )
    assert receipt.batch_id
    drain(raise_errors=False)
    Batch.objects.filter(pk=receipt.batch_id).update(mark_done_error=f"ValueError: {MARK}")
    own_queries.ask_to_retry(receipt.batch_id, requested_by=WHO)
    batches.retry(receipt.batch_id)
    return receipt.batch_id


def _waiting() -> UUID:
    return batches.submit("bank", "transfer", [{"iban": INPUT}], wait=True, requested_by=WHO)


def _slow_query() -> UUID:
    query = slow_queries.submit("bank", "report", {"iban": QUERY}, requested_by=WHO)
    drain(op="report")
    return query


def _uploads() -> list[UUID]:
    """Return the tokens of an upload that is not confirmed, and of one that cannot be."""
    checker = checkers.find("payments")
    assert checker is not None
    return [
        uploads.keep(content, file_name=f"{FILE}-uploaded.csv", checker=checker, uploaded_by=WHO)
        for content in (f"{PREVIEWED},succeed\n".encode(), f"{CAME},reject\n".encode())
    ]


def _worker(ended: UUID) -> Worker:
    """Return a worker that has the rows of a retry in hand."""
    worker = Worker.objects.create(name="w", host="h", pid=1, version="1", ops=[["B", "bank", "transfer"]])
    rows = BatchRow.objects.filter(batch__parent=ended, batch__kind=Kind.BATCH)
    rows.update(status=Status.IN_PROGRESS, claim=worker.pk * CLAIMS_PER_WORKER, claimed_at=Now(), done_by="w")
    return worker


def everything(folder: Path) -> dict[str, Any]:
    """Return all that is in the tables, and what is in the storage."""
    tables = {model.__name__: list(model._default_manager.order_by("pk").values()) for model in TABLES}
    return {**tables, "storage": files_in(folder)}


# The walk.


def deed(role: Role, address: Address) -> bool | None:
    """Tell whether the person may do what a POST to the address means; None where it means nothing."""
    _, _, page = address.name.rpartition("batch_")
    if page in ACTS:
        return role.may("view_batch") and role.may(ACTS[page])
    if page == "retry_line":
        return role.may("view_batchrow") and role.may("retry_batch")
    return role.may("submit_batch") if page.startswith("upload") else None


def body_of(address: Address) -> dict[str, Any]:
    """Return what a form would send that means it."""
    body = {"confirmed": "yes", "reason": "because", "post": "yes", "_save": "1", "status": "aborted"}
    if address.name == "alya_django_batch_upload":
        return {**body, "file_type": "payments", "file": SimpleUploadedFile("new.csv", b"x,succeed\n")}
    return body


def requests(role: Role, addresses: list[Address]) -> Iterator[tuple[str, Any]]:
    """Yield every request of somebody with its answer, but for what the person may do."""
    client = role.client()
    for address in addresses:
        for method in METHODS:
            if method != "POST":
                response = client.generic(method, address.path, b"{}", content_type="application/json")
            elif not deed(role, address):
                response = client.post(address.path, body_of(address))
            else:
                continue
            assert response.status_code in STATUSES, f"{response.status_code}: {method} {address.path}"
            yield f"{role.name}: {method} {address.path}", response


def told(response: Any) -> str:
    """Return all that an answer says."""
    body = b"".join(response.streaming_content) if response.streaming else response.content
    return f"{response.headers}{response.cookies}{body.decode(errors='replace')}"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of refusals are what is wanted here."""
    caplog.set_level(logging.ERROR, "django")


class RoleMatrixTests:
    @pytest.mark.slow
    @pytest.mark.rule("ADM-10", "ADM-15")
    def test_nobody_learns_or_changes_what_he_may_not(self, addresses: list[Address], folder: Path) -> None:
        """Every answer is searched for what is hidden from the person; all tables and files stay as they were."""
        before, found, count = everything(folder), [], 0
        for role in roles():
            secrets = [one.text for one in SECRETS if not role.may(*one.needs)]
            for asked, response in requests(role, addresses):
                said, count = told(response), count + 1
                found += [f"{secret} is told to {asked}" for secret in secrets if secret in said]
            after = everything(folder)
            logged = after["LogEntry"][len(before["LogEntry"]) :]
            taken = [one for one in logged if one["change_message"].startswith("Downloaded")]
            assert logged == (taken if role.may("download_output") else []), role
            before["LogEntry"] = after["LogEntry"]
            assert after == before, role
        print(f"{count} requests, {len(found)} of them told a secret.")
        assert found == []


def none_listed(pages: BatchAdmin, request: HttpRequest) -> Any:
    return Batch.objects.none()


def none_shown(pages: BatchAdmin, request: HttpRequest, obj: Batch | None = None) -> bool:
    return obj is None


class OwnPagesTests:
    """A project's own page of batches decides whose batches are there, for all pages."""

    @pytest.mark.slow
    @pytest.mark.rule("ADM-16")
    @pytest.mark.parametrize(("name", "rule"), [("get_queryset", none_listed), ("has_view_permission", none_shown)])
    @pytest.mark.parametrize("role", OF_ONE_PAGE, ids=lambda role: role.name.replace(" ", "-"))
    def test_what_it_hides_is_hidden_everywhere(
        self,
        name: str,
        rule: Callable[..., Any],
        role: Role,
        addresses: list[Address],
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Rows, lines, files, figures, downloads and acts follow it; Django's lists follow get_queryset alone."""
        monkeypatch.setattr(BatchAdmin, name, rule, raising=False)
        lists = ("alya_django_batch_changelist", "alya_django_batchfile_changelist", "autocomplete")
        hidden = [f"{FILE}.csv", CODE, INPUT, RESULT, CONTEXT, QUERY, ANSWER, WRITTEN]
        client, before, found = role.client(), everything(folder), []
        for address in addresses:
            answers = [client.get(address.path)]
            if address.is_ours and "upload" not in address.name:
                answers.append(client.post(address.path, body_of(address)))
            if name == "get_queryset" or address.name not in lists:
                said = "".join(map(told, answers))
                found += [f"{secret}: {address.path}" for secret in hidden if secret in said]
        after = everything(folder)
        logged = after.pop("LogEntry")[len(before.pop("LogEntry")) :]
        assert found == []
        assert after == before
        assert {entry["content_type_id"] for entry in logged} <= {ContentType.objects.get_for_model(BatchFile).pk}


class MethodTests:
    @pytest.mark.rule("ADM-15")
    def test_a_page_serves_no_other_method(
        self, addresses: list[Address], admin_client: Client, django_assert_num_queries: Callable[..., Any]
    ) -> None:
        """Whoever asks is told which it serves, and nothing was read for that."""
        ours = [address for address in addresses if address.is_ours]
        with django_assert_num_queries(0):
            for address, method in product(ours, SERVED_NOWHERE):
                response = admin_client.generic(method, address.path)
                assert (response.status_code, method in response["Allow"]) == (405, False), address
