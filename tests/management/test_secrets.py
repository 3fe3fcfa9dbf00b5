"""What commands print of payloads: it ends up in logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alya_django import BadFile, BatchInput, ControlTotals, FaultyLine, register_batch_processor, register_file_checker
from alya_django.masks import MASK
from tests.management.operators import run
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]

IBAN = "DE89370400440532013000"
SUM = "7070.70"
FILES = ("refused", "broken", "faulty", "totals")
SETTINGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "keys": {"MASK_KEYS": ["iban", "salary"]},
    "function": {"MASK_WITH": "tests.management.test_secrets.hide"},
}


def hide(value: Any, what: str, details: Any) -> Any:
    return None


def check(file: Any, file_name: str, context: Any) -> Iterator[Any]:
    """Find each kind of fault that quotes a file."""
    iban = file.read().decode()
    match Path(file_name).stem:
        case "refused":
            raise BadFile(f"{iban} is no customer")
        case "broken":
            raise ValueError(iban)
        case "faulty":
            yield FaultyLine(1, f"{iban} is no customer")
        case _:
            yield ControlTotals(count=3, sums={"salary": SUM})
    yield BatchInput(2, {"iban": iban, "salary": "1.00"})


@pytest.fixture
def printed(tmp_path: Path, settings: Any) -> Any:
    """Have every command print what it says of every file, in words and as JSON; return it by command."""
    register_batch_processor("bank", "transfer", echo)
    register_file_checker("payments", check, app="bank", op="transfer", totals="salary")

    def ending(name: str, *arguments: str) -> str:
        words, objects = run(name, *arguments), run(name, *arguments, "--json")
        return "\n".join((*words[1:], *objects[1:]))

    def print_all(**alya: Any) -> dict[str, str]:
        settings.ALYA = alya
        told = {}
        for name in FILES:
            (tmp_path / f"{name}.txt").write_text(f"{IBAN}")
            path = str(tmp_path / f"{name}.txt")
            told[f"alya_submit {name}"] = ending("alya_submit", path, "--type", "payments", "--allow-duplicate")
        told["alya_status"] = ending("alya_status", _batch_of(told["alya_submit totals"]))
        return told

    return print_all


def _batch_of(told: str) -> str:
    return told.partition("batch ")[2].partition(":")[0]


class PrintedTests:
    @pytest.mark.rule("SEC-34")
    @pytest.mark.parametrize("masks", SETTINGS)
    @pytest.mark.parametrize("log_payloads", [False, True])
    def test_quotes_payloads_where_the_project_wants_it(self, masks: str, log_payloads: bool, printed: Any) -> None:
        """Nothing of them where anything is masked, unless logs may have it; else all."""
        told = printed(**SETTINGS[masks], LOG_PAYLOADS=log_payloads)
        found = {name for name, text in told.items() if IBAN in text or SUM in text}
        assert found == (set() if SETTINGS[masks] and not log_payloads else set(told))
        assert len(told) == 5

    @pytest.mark.rule("SEC-34")
    def test_says_what_is_no_payload(self, printed: Any) -> None:
        """Which lines are faulty, and how many rows are missing."""
        told = printed(**SETTINGS["keys"])
        assert f"line 1: {MASK}" in told["alya_submit faulty"]
        assert f"3 rows declared, 1 received; salary: {MASK}" in told["alya_status"]
