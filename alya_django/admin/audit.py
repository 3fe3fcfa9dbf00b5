"""What is kept of who did what: Django's own log of the admin, which its pages of history show."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import Model
from django.http import HttpRequest


def log(request: HttpRequest, target: Model, message: str, *, reason: str = "") -> None:
    """Write down that a person did something to a batch or a file, or took something out of it."""
    user: Any = request.user
    words = f"{message} ({reason})" if reason else message
    LogEntry.objects.log_actions(user.pk, [target], CHANGE, words)
