"""``manage.py serve``: the example project as a demo site, with workers beside the server."""

import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from types import FrameType
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from example_project.bank.management.commands.demo_user import PASSWORD, USERNAME
from example_project.bank.samples import abort_reports

LOOK_SECONDS = 0.1
STOP_SECONDS = 20
# One that is told to stop before it has begun ends by the signal itself.
GENTLE = (0, -signal.SIGINT)
# The second worker is there to be kept: the night's report takes an hour. The first does what the admin leaves to one.
WORKERS = {
    "worker of the bank": ("--app", "bank", "--app", "flights", "--app", "alya"),
    "worker of the night": ("--app", "night"),
}


class Command(BaseCommand):
    help = "Serves a demo site with samples of batches, at this machine only, and runs its workers. Ctrl-C ends all."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="Where the site answers (default: %(default)s).")

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        call_command("demo_user", stdout=self.stdout)
        call_command("sample", stdout=self.stdout)
        connections.close_all()
        self._is_stopping = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._start(processes, f"127.0.0.1:{options['port']}")
            ended = self._watch(processes)
        finally:
            not_well = end(processes)
        if ended or not_well:
            raise CommandError(" ".join([*ended, *not_well]))
        self.stdout.write("The server and the workers have stopped.")

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self._is_stopping = True

    def _start(self, processes: dict[str, "subprocess.Popen[bytes]"], address: str) -> None:
        processes["server"] = begin("runserver", address, "--noreload")
        for name, arguments in WORKERS.items():
            processes[name] = begin("alya_worker", *arguments)
        self.stdout.write(f"http://{address}/admin/ for the batches: user {USERNAME}, password {PASSWORD}")
        self.stdout.write(f"http://{address}/bank/ for statements, which are slow queries")
        self.stdout.write("Ctrl-C stops the server and its workers.")
        self.stdout.flush()

    def _watch(self, processes: dict[str, "subprocess.Popen[bytes]"]) -> list[str]:
        """Wait for a signal, or for the end of a process, and tell which have ended."""
        while not self._is_stopping:
            ended = [name for name, process in processes.items() if process.poll() is not None]
            if ended:
                return [f"The {name} ended with {processes[name].returncode}." for name in ended]
            time.sleep(LOOK_SECONDS)
        return []


def begin(*arguments: str) -> "subprocess.Popen[bytes]":
    """Start a management command out of the terminal's reach: Ctrl-C is for the parent, who passes it on once."""
    # Without DEBUG the site would want HTTPS, and leave style sheets to others.
    environment = {"LOG_LEVEL": "WARNING", **os.environ, "DEBUG": "1"}
    command = [sys.executable, sys.argv[0], *arguments]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0)


def end(processes: dict[str, "subprocess.Popen[bytes]"]) -> list[str]:
    """End processes gently, and after some seconds by force; tell which did not end well."""
    running = {name: process for name, process in processes.items() if process.poll() is None}
    for process in running.values():
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    while any(process.poll() is None for process in running.values()) and time.monotonic() < deadline:
        # The workers have been told: what is aborted now is the last that they had in hand.
        abort_reports()
        time.sleep(LOOK_SECONDS)
    for process in running.values():
        process.kill()
        process.wait()
    return [f"The {name} ended with {it.returncode}." for name, it in running.items() if it.returncode not in GENTLE]
