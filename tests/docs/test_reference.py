"""The reference pages against the code: the same names, defaults, ids, states and options, no more and no fewer."""

from __future__ import annotations

import argparse
import ast
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.dispatch import Signal

import alya_django
from alya_django import batches, checks, conf, intake, signals, slow_queries, testing
from alya_django.management import commands
from alya_django.status import FINAL, Kind, Status
from tests.docs import pages

COMMANDS = [module.name for module in pkgutil.iter_modules(commands.__path__)]


def options(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the options of a parser, each with what its help says."""
    return {action.option_strings[-1]: action.help or "" for action in parser._actions if action.option_strings}


def check_ids() -> set[str]:
    """Return the ids of all system checks: those in the source, and those that missing aliases make."""
    source = ast.parse(Path(checks.__file__).read_text(encoding="utf-8"))
    keywords = (node for node in ast.walk(source) if isinstance(node, ast.keyword) and node.arg == "id")
    written = {node.value.value for node in keywords if isinstance(node.value, ast.Constant)}
    return written | {str(found.id) for found in checks.check_aliases()}


class ApiTests:
    def test_names_what_is_public(self) -> None:
        """Every public name is documented once, and nothing else is."""
        documented = pages.directives(pages.read("reference/api.md"))
        public = {f"alya_django.{name}" for name in alya_django.__all__}
        for module in (batches, slow_queries, testing):
            public |= {f"{module.__name__}.{name}" for name in module.__all__}
        public |= {f"alya_django.intake.{name}" for name in intake.__all__ if name not in alya_django.__all__}
        public |= {"alya_django.status_cache.status_key", "alya_django.admin.register"}
        public |= {"alya_django.options.Options"}
        assert sorted(documented) == sorted(public)


class SettingsTests:
    def test_states_every_key_and_its_default(self) -> None:
        """The tables have the keys of the code, each with its default."""
        stated = {
            ast.literal_eval(f"'{key.strip('`')}'"): ast.literal_eval(default.strip("`"))
            for key, default, _value, _meaning in pages.rows(pages.read("reference/settings.md"))
        }
        assert stated == conf.DEFAULTS

    def test_says_what_each_is(self) -> None:
        """Every key has a type or unit and a meaning; what is in seconds says so."""
        for key, _default, value, meaning in pages.rows(pages.read("reference/settings.md")):
            assert value, key
            assert meaning, key
            assert ("_SECONDS" in key) == (value == "seconds"), key


class ChecksTests:
    def test_has_a_heading_for_every_id(self, settings: Any) -> None:
        """The headings are the ids of the code, in order."""
        settings.ALYA = {"CACHE": "missing", "STORAGE": "missing"}
        assert pages.headings(pages.read("reference/checks.md")) == sorted(check_ids())


class StatesTests:
    @pytest.fixture
    def page(self) -> str:
        return pages.read("reference/states.md")

    def test_has_every_state(self, page: str) -> None:
        """The first table has name, stored and shown form of every state, the final ones last."""
        stated = [tuple(cell.strip("`") for cell in cells[:3]) for cells in pages.rows(page) if len(cells) == 5]
        assert stated == [(status.name, status.value, status.label) for status in Status]
        assert {Status[name] for name, _stored, _shown in stated[-3:]} == FINAL

    def test_has_both_kinds(self, page: str) -> None:
        """The last table has name, stored and shown form of both kinds."""
        stated = [tuple(cell.strip("`") for cell in cells[:3]) for cells in pages.rows(page, "Kinds")]
        assert stated == [(kind.name, kind.value, kind.label) for kind in Kind]

    @pytest.mark.parametrize("section", ["Transitions of a batch", "Transitions of a row"])
    def test_transitions_are_between_states(self, page: str, section: str) -> None:
        """Both sides of every transition are states, none leaves a final one, and every state is reached."""
        labels = {str(status.label): status for status in Status}
        reached = set()
        for before, after, who in pages.rows(page, section):
            assert who
            left = set() if before == "-" else {labels[label] for label in before.split(", ")}
            assert not left & FINAL
            reached |= {labels[label] for label in after.split(", ")}
        expected = set(Status) - ({Status.WAIT} if "row" in section else set())
        assert reached == expected

    def test_the_verbs_it_names_exist(self, page: str) -> None:
        """Every verb in the tables is a function of its module."""
        for module, verb in re.findall(r"`(batches|slow_queries)\.(\w+)`", page):
            assert verb in {"batches": batches, "slow_queries": slow_queries}[module].__all__


class SignalsTests:
    def test_has_every_signal(self) -> None:
        """Every signal is documented once, and nothing else is."""
        sent = [f"alya_django.signals.{name}" for name, value in vars(signals).items() if isinstance(value, Signal)]
        assert pages.directives(pages.read("reference/signals.md")) == sent


class CommandsTests:
    def test_has_a_heading_for_every_command(self) -> None:
        """The headings are the commands of the app."""
        assert pages.headings(pages.read("reference/commands.md")) == COMMANDS

    @pytest.mark.parametrize("name", COMMANDS)
    def test_states_every_option(self, name: str) -> None:
        """The command's table has its own options, in order, each with the words of its help."""
        command = load_command_class("alya_django", name)
        own = options(command.create_parser("manage.py", name))
        for option in options(BaseCommand().create_parser("manage.py", name)):
            own.pop(option, None)
        stated = [(option.strip("`"), meaning) for option, meaning in _table(name)]
        assert stated == list(own.items())


def _table(command: str) -> Iterator[list[str]]:
    yield from pages.rows(pages.read("reference/commands.md"), command)
