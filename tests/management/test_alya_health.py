from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db.models.functions import Now

from alya_django.models import Worker
from tests.conftest import ROOT
from tests.management.operators import run
from tests.services import free_port

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class AlyaHealthTests:
    def test_names_the_workers_of_this_host_that_are_alive(self, capsys) -> None:
        """It ends as a command does that went well."""
        Worker.objects.create(name="a", host=socket.gethostname(), pid=1)
        call_command("alya_health")
        assert capsys.readouterr().out == "Alive: a.\n"

    def test_tells_programs(self) -> None:
        """As all commands of operators do."""
        host = socket.gethostname()
        (told,) = run("alya_health", "--json").objects
        assert list(told) == ["error"]
        Worker.objects.create(name="a", host=host, pid=1)
        assert run("alya_health", "--json").objects == [{"host": host, "workers": ["a"]}]

    def test_fails_without_one(self) -> None:
        """Those of other hosts do not count, nor does one that has fallen silent."""
        Worker.objects.create(name="a", host="elsewhere", pid=1)
        Worker.objects.create(name="b", host=socket.gethostname(), pid=1)
        Worker.objects.filter(name="b").update(heartbeat=Now() - timedelta(seconds=30))
        ending = run("alya_health")
        assert re.fullmatch(r"No worker of .+ was heard of within 20 s\.", ending.complaint)
        assert ending.code == 1

    @pytest.mark.rule("OPS-2")
    @pytest.mark.parametrize("command", [["alya_health"], ["alya_status"]])
    def test_a_database_that_is_down_is_told_in_one_line(self, command) -> None:
        """A probe asks again and again, and each answer goes to a log."""
        url = f"postgresql://alya@127.0.0.1:{free_port()}/alya"
        done = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.acceptance.settings", "DATABASE_URL": url},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"CommandError: OperationalError .*Connection refused.*\n", done.stderr)
