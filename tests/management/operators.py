"""Running an operator's command as a shell would: what it printed, and with which code it ended."""

from __future__ import annotations

import io
import json
from typing import Any, NamedTuple

from django.core.management import call_command
from django.core.management.base import CommandError


class Ending(NamedTuple):
    """How a command ended: its code, what it printed, and what it complained of."""

    code: int
    out: str
    complaint: str

    @property
    def objects(self) -> list[Any]:
        """What it printed, where each line is JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


def run(name: str, *arguments: str) -> Ending:
    """Run a command and return how it ended."""
    out = io.StringIO()
    try:
        call_command(name, *arguments, stdout=out)
    except CommandError as error:
        return Ending(error.returncode, out.getvalue(), str(error))
    except SystemExit as answer:
        return Ending(int(answer.code or 0), out.getvalue(), "")
    return Ending(0, out.getvalue(), "")
