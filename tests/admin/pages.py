"""Where the pages are, how the tests read one, and what is left of what was done there."""

from __future__ import annotations

import html
import re
from urllib.parse import urlencode
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.http import HttpResponse

from alya_django.models import Batch

BATCHES = "/admin/alya_django/batch/"
ROWS = "/admin/alya_django/batchrow/"
WORKERS = "/admin/alya_django/worker/"
FILES = "/admin/alya_django/batchfile/"


def page_of(batch_id: object) -> str:
    """Return the address of a batch's page."""
    return f"{BATCHES}{batch_id}/change/"


def act_of(batch_id: object, act: str) -> str:
    """Return the address of an act's question."""
    return f"{BATCHES}{batch_id}/{act}/"


def rows_of(batch_id: object, **query: object) -> str:
    """Return the address of a batch's rows."""
    return f"{ROWS}?{urlencode({'batch': str(batch_id), **query})}"


def line_of(batch_id: object, line: int = 1) -> str:
    """Return the address of a line's page."""
    return f"{BATCHES}{batch_id}/line/{line}/"


def text(response: HttpResponse) -> str:
    """Return what a page says, without its markup."""
    assert response.status_code == 200
    return _words(response.content.decode())


def table(response: HttpResponse) -> list[list[str]]:
    """Return the cells of a list, row by row."""
    assert response.status_code == 200
    markup = re.sub(r"<td class=\"action-checkbox\">.*?</td>", "", response.content.decode(), flags=re.DOTALL)
    rows = re.findall(r"<tr><th class=\"field.*?</tr>", markup, re.DOTALL)
    return [[_words(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def column(response: HttpResponse, index: int = 0) -> list[str]:
    """Return one column of a list."""
    return [row[index] for row in table(response)]


def links(response: HttpResponse) -> dict[str, str]:
    """Return the addresses of a page's links by their words."""
    assert response.status_code == 200
    found = re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>(.*?)</a>', response.content.decode(), re.DOTALL)
    return {_words(words): html.unescape(address) for address, words in found}


def said(response: HttpResponse) -> list[str]:
    """Return what the next page tells the person."""
    return [str(message) for message in get_messages(response.wsgi_request)]


def logged() -> list[str]:
    """Return what the admin's log has, oldest first."""
    return [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]


def states() -> dict[UUID, str]:
    """Return the state of every batch that there is."""
    return dict(Batch.objects.values_list("pk", "status"))


def _words(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())
