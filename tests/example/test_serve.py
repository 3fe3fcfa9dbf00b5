from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import psutil
import pytest

from alya_django.status import Status
from tests.concurrency.connections import wait_until
from tests.services import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
BATCHES = "/admin/alya_django/batch/"
OTHERS = ("DATABASE_URL", "CACHE_URL", "STORAGE_DIR", "ALLOWED_HOSTS", "DEBUG", "SECRET_KEY")


class Site:
    """A demo site of its own, in a process, and a browser that looks at it."""

    def __init__(self, var_dir: Path) -> None:
        self.port = free_port()
        self.log = var_dir / "serve.log"
        environment = {name: value for name, value in os.environ.items() if name not in OTHERS}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "serve", "--port", str(self.port)],
                cwd=ROOT,
                env={**environment, "DJANGO_SETTINGS_MODULE": "example_project.settings", "VAR_DIR": str(var_dir)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.browser: OpenerDirector = build_opener(HTTPCookieProcessor(CookieJar()))

    def get(self, path: str) -> str:
        with self.browser.open(f"http://127.0.0.1:{self.port}{path}") as response:
            return response.read().decode()

    def post(self, path: str, **fields: str) -> str:
        """Fill in the form of a page and send it."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(path))[1]
        data = urlencode({**fields, "csrfmiddlewaretoken": token}).encode()
        with self.browser.open(f"http://127.0.0.1:{self.port}{path}", data) as response:
            return response.read().decode()

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return "Log in" in self.get("/admin/login/")
        except URLError:
            return False

    def log_in(self) -> str:
        """Log in as the user that the output names, and return the page that comes then."""
        username, password = re.search(r"user (\w+), password (\w+)", self.log.read_text()).groups()
        return self.post("/admin/login/", username=username, password=password, next=BATCHES)

    def count(self, kind: str, status: Status) -> int:
        """Return how many batches of a kind and state the admin lists."""
        page = self.get(f"{BATCHES}?{urlencode({'kind': kind, 'status': status.value})}")
        return page.count('<th class="field-name">')

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], Site]]:
    """Start demo sites on one database; what still runs at the end of the test is killed."""
    sites = []

    def start() -> Site:
        site = Site(tmp_path)
        sites.append(site)
        wait_until(site.answers, "the site answers", seconds=START_SECONDS)
        return site

    yield start
    for site in sites:
        if site.process.poll() is None:
            for process in (*site.processes(), site.process):
                process.kill()
            site.process.wait()


class ServeTests:
    def test_shows_every_state_and_ends_with_all_its_processes(self, serve: Callable[[], Site]) -> None:
        """The named superuser sees a batch and a slow query in each state; Ctrl-C leaves nothing running."""
        site = serve()
        assert "<title>Batches | " in site.log_in()
        states = [("B", status) for status in Status] + [("Q", status) for status in Status if status != Status.WAIT]
        for kind, status in states:
            wait_until(lambda k=kind, s=status: site.count(k, s) == 1, f"{kind} is {status}", seconds=START_SECONDS)
        processes = site.processes()
        # The server, and two workers, each with its supervisor.
        assert len(processes) == 5
        site.process.send_signal(signal.SIGINT)
        assert site.process.wait(60) == 0, site.log.read_text()
        assert not psutil.wait_procs(processes, timeout=0)[1]
        assert "The server and the workers have stopped." in site.log.read_text()

    def test_a_statement_is_worked_off_beside_the_samples(self, serve: Callable[[], Site]) -> None:
        """Who asks at the site gets the answer from its worker, though that has a long batch at hand."""
        site = serve()
        site.log_in()
        page = site.post("/bank/", account="1001", first_day="2026-01-01", last_day="2999-12-31")
        address = re.search(r'action="(/bank/statements/[^"]*/)cancel/"', page)[1]
        wait_until(lambda: "Download statement.csv" in site.get(address), "the statement is there")
        assert "Opening,5000.00,5000.00,opening:1001" in site.get(f"{address}files/statement.csv")

    def test_starts_again_with_what_is_there(self, serve: Callable[[], Site]) -> None:
        """A second start makes no second batch of what is in its state already."""
        first = serve()
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(60) == 0, first.log.read_text()
        again = serve()
        again.log_in()
        assert again.count("B", Status.WAIT) == 1

    def test_ends_when_a_process_ends(self, serve: Callable[[], Site]) -> None:
        """Without its server the site is none: all stops, and it says what ended."""
        site = serve()
        server = next(process for process in site.processes() if "runserver" in process.cmdline())
        server.kill()
        assert site.process.wait(60) == 1
        assert "The server ended with -9." in site.log.read_text()
