"""Ops whose rows take as long as a test wants."""

import time

from django.apps import AppConfig

from alya_django import Row, register_batch_processor


class OpsConfig(AppConfig):
    name = "tests.acceptance.ops"
    label = "acceptance_ops"

    def ready(self) -> None:
        register_batch_processor("acceptance", "sleep", sleep)


def sleep(row: Row) -> None:
    """Take the seconds that the row's input says."""
    time.sleep(row.input)
