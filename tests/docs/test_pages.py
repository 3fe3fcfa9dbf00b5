"""What the builder of the documentation does not see: the links of the pages beside it."""

from __future__ import annotations

import re

import pytest

from tests.docs import pages

BESIDE = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)[^)]*\)")


class LinkTests:
    @pytest.mark.parametrize("page", BESIDE)
    def test_lead_to_files(self, page: str) -> None:
        """Every link of a page beside docs/ that stays in the project leads to a file."""
        links = LINK.findall((pages.ROOT / page).read_text(encoding="utf-8"))
        assert [link for link in links if not (pages.ROOT / link).exists()] == []

    def test_the_readme_leads_to_every_page(self) -> None:
        """README.md links to each page of docs/ but the index, which says the same."""
        links = set(LINK.findall((pages.ROOT / "README.md").read_text(encoding="utf-8")))
        there = {path.relative_to(pages.ROOT).as_posix() for path in pages.DOCS.rglob("*.md")}
        assert there - links == {"docs/index.md"}
