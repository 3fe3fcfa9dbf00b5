"""How the tests read a page: its words, its table and its links."""

from __future__ import annotations

import html
import re
from urllib.parse import urlencode

from django.http import HttpResponse

BATCHES = "/admin/alya_django/batch/"
ROWS = "/admin/alya_django/batchrow/"
WORKERS = "/admin/alya_django/worker/"
FILES = "/admin/alya_django/batchfile/"


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


def _words(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())
