"""The page for those who come from Alya: every name of the original has its place, and every place exists."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from alya_django.conf import DEFAULTS
from tests.docs import pages

NAMES = Path(__file__).with_name("alya_names.txt")
WIKI = "The wiki and later versions"
# What the wiki describes without a name that the original has.
OF_THE_WIKI = ("list of batches", "list of slow queries", "batch status", "mark done", "is alive")


@pytest.fixture
def page() -> str:
    return pages.read("explanation/from-alya.md")


def names() -> dict[str, set[str]]:
    """Return the original's names by section."""
    sections: dict[str, set[str]] = {}
    for line in NAMES.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            section, listed = line.split(": ")
            sections.setdefault(section, set()).update(listed.split())
    return sections


def resolve(full_name: str) -> Any:
    """Return what a full name stands for; raise if there is no such thing."""
    package, *rest = full_name.split(".")
    found: Any = import_module(package)
    for number, name in enumerate(rest, 1):
        try:
            found = getattr(found, name)
        except AttributeError:
            found = import_module(".".join([package, *rest[:number]]))
    return found


class FromAlyaTests:
    @pytest.mark.parametrize("section", names())
    def test_gives_every_name_its_place(self, page: str, section: str) -> None:
        """Each section has the original's names, no more and no fewer, each with a place or a reason."""
        rows = pages.rows(page, section)
        assert {name.strip("`") for name, _place in rows} == names()[section]
        assert len(rows) == len(names()[section])
        assert all(place for _name, place in rows)

    def test_gives_what_the_wiki_adds_its_place(self, page: str) -> None:
        """The functions that only the wiki has are there."""
        assert {name for name, _place in pages.rows(page, WIKI)} >= set(OF_THE_WIKI)

    def test_every_place_exists(self, page: str) -> None:
        """Each full name on the page can be imported."""
        found = re.findall(r"`(alya_django\.(?!engine)[\w.]+)`", page)
        assert found
        for full_name in found:
            assert resolve(full_name) is not None

    def test_every_setting_exists(self, page: str) -> None:
        """Each setting that the page names is one."""
        for key in re.findall(r"setting `(\w+)`", page):
            assert key == "ALYA" or key in DEFAULTS
