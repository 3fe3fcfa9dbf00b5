"""Ops whose rows take as long as a test wants."""

import time
from typing import Any

from django.apps import AppConfig
from django.conf import settings

from alya_django import Row, register_batch_processor, register_slow_query_processor


class OpsConfig(AppConfig):
    name = "tests.acceptance.ops"
    label = "acceptance_ops"

    def ready(self) -> None:
        if release := getattr(settings, "RELEASE", None):
            register_batch_processor("acceptance", release, sleep)
            return
        register_batch_processor("acceptance", "sleep", sleep)
        register_slow_query_processor("acceptance", "answer", answer)


def sleep(row: Row) -> None:
    """Take the seconds that the row's input says."""
    time.sleep(row.input)


def answer(row: Row) -> Any:
    """Answer with the question."""
    return row.input
