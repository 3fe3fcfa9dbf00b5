"""The pages in other languages: nothing is left out of a catalogue, and what is compiled is what was written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_python
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.utils.translation.template import templatize

import alya_django

PACKAGE = Path(alya_django.__file__).parent
GERMAN = PACKAGE / "locale" / "de" / "LC_MESSAGES"
FUNCTIONS = ["_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy"]
PLACEHOLDER = re.compile(r"%\(\w+\)s|%%s|\{\w+\}")

Texts = str | tuple[str, ...]


def said() -> set[Texts]:
    """Return every text of the package that is to be translated; of one with a plural, both."""
    found: set[Texts] = set()
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.html")]:
        source = path.read_text()
        if path.suffix == ".html":
            # What it makes is Python by the line only, for a reader that does not mind how lines are indented.
            source = "\n".join(line.strip() for line in templatize(source).splitlines())
        for _, function, texts, _ in extract_python(BytesIO(source.encode()), FUNCTIONS, [], {}):
            found.add(tuple(texts[:2]) if function.startswith("ngettext") else texts)
    return found


def forms(texts: Texts) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)


def messages(catalogue: Catalog) -> Iterator[Message]:
    return (message for message in catalogue if message.id)


def meaning(catalogue: Catalog) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return what a catalogue says for what."""
    return {forms(message.id): forms(message.string) for message in messages(catalogue)}


@pytest.fixture(scope="module")
def german() -> Catalog:
    with (GERMAN / "django.po").open("rb") as file:
        return read_po(file, locale="de")


class CatalogueTests:
    @pytest.mark.rule("ADM-60")
    def test_has_every_text(self, german: Catalog) -> None:
        """Whoever adds a text to a page runs ``make messages``, and says it in German."""
        assert {message.id for message in messages(german)} == said()

    @pytest.mark.rule("ADM-60")
    def test_is_complete(self, german: Catalog) -> None:
        """Each text is translated, in each of its forms, and none is a guess."""
        assert [message.id for message in messages(german) if message.fuzzy or not all(forms(message.string))] == []

    @pytest.mark.rule("ADM-60")
    def test_keeps_what_is_filled_in(self, german: Catalog) -> None:
        """A translation has the placeholders of its text, wherever it needs them."""
        wrong = [
            message.id
            for message in messages(german)
            for text, translated in zip(forms(message.id), forms(message.string), strict=True)
            if sorted(PLACEHOLDER.findall(text)) != sorted(PLACEHOLDER.findall(translated))
        ]
        assert wrong == []

    @pytest.mark.rule("ADM-60")
    def test_is_compiled(self, german: Catalog) -> None:
        """The file that Django reads says the same."""
        with (GERMAN / "django.mo").open("rb") as file:
            compiled = read_mo(file)
        assert meaning(compiled) == meaning(german)
