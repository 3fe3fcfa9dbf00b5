"""One process of ``throughput``: ``alya_worker --drain``, started when all processes are ready."""

import io

import django
from django.core.management import call_command
from django.db import connection

from benchmarks import harness

if __name__ == "__main__":
    django.setup()
    connection.ensure_connection()
    harness.wait_for_start()
    # Nobody reads on once all have started.
    call_command("alya_worker", "--drain", stdout=io.StringIO())
