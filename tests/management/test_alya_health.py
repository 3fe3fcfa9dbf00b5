from __future__ import annotations

import re
import socket
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models.functions import Now

from alya_django.models import Worker

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class AlyaHealthTests:
    def test_names_the_workers_of_this_host_that_are_alive(self, capsys) -> None:
        """It ends as a command does that went well."""
        Worker.objects.create(name="a", host=socket.gethostname(), pid=1)
        call_command("alya_health")
        assert capsys.readouterr().out == "Alive: a.\n"

    def test_fails_without_one(self) -> None:
        """Those of other hosts do not count, nor does one that has fallen silent."""
        Worker.objects.create(name="a", host="elsewhere", pid=1)
        Worker.objects.create(name="b", host=socket.gethostname(), pid=1)
        Worker.objects.filter(name="b").update(heartbeat=Now() - timedelta(seconds=30))
        with pytest.raises(CommandError) as caught:
            call_command("alya_health")
        assert re.fullmatch(r"No worker of .+ was heard of within 20 s\.", str(caught.value))
        assert caught.value.returncode == 1
