"""The tutorial, followed word for word in an empty directory as a newcomer would."""

from __future__ import annotations

import doctest
import http.cookiejar
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import pages
from tests.services import free_port

# These go on until they are stopped, so the reader has them in another terminal.
GOING_ON = ("python manage.py alya_worker", "python manage.py runserver 8765")
# The only words that are not the tutorial's: what is installed is this checkout, built, and the port is a free one.
PACKAGE = '"alya-django"'
PORT = "8765"
DOCTEST = """
import doctest, sys
test = doctest.DocTestParser().get_doctest(sys.stdin.read(), {}, "tutorial", "tutorial.md", 0)
runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
runner.run(test)
sys.exit(bool(runner.failures))
"""
DEADLINE_SECONDS = 60


class Reader:
    """Somebody who does what the tutorial says, in a directory of their own."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self._folder = folder
        self._wheel = wheel
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DJANGO_", "PYTHON", "VIRTUAL_ENV", "COV", "COVERAGE"))
        }
        self._environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._going_on: dict[str, subprocess.Popen[str]] = {}
        self.port = str(free_port())
        self.printed = ""

    def follow(self, block: pages.Block) -> None:
        """Do what one block says."""
        if block.name is not None:
            with Path(self._folder, block.name).open("a" if block.is_added else "w", encoding="utf-8") as file:
                file.write(block.text)
        elif block.language == "sh":
            self.printed = "".join(self._type(line) for line in block.text.splitlines())
        elif block.language == "python-console":
            self._type(f"python manage.py shell --no-imports --command {shlex.quote(DOCTEST)}", given=block.text)
        elif block.language == "text":
            matches = doctest.OutputChecker().check_output(block.text, self.printed, doctest.ELLIPSIS)
            assert matches, f"Line {block.line} expects:\n{block.text}\nand this was printed:\n{self.printed}"
        else:
            raise AssertionError(f"Line {block.line}: nobody knows what to do with {block.language!r}.")

    def stop(self) -> dict[str, int]:
        """Press Ctrl-C in the other terminals, and return what each command ended with."""
        for process in self._going_on.values():
            os.killpg(process.pid, signal.SIGINT)
        codes = {}
        for command, process in self._going_on.items():
            try:
                process.communicate(timeout=DEADLINE_SECONDS)
            finally:
                process.kill()
            codes[command] = process.returncode
        self._going_on = {}
        return codes

    def _type(self, line: str, given: str = "") -> str:
        if line in GOING_ON:
            # A shell's child in the background ignores Ctrl-C: here it is the shell that is replaced.
            self._going_on[line] = subprocess.Popen(
                ["bash", "-c", f"exec {line.replace(PORT, self.port)}"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            return ""
        # The last two lines let the next command find what this one has exported.
        script = f"{line.replace(PACKAGE, shlex.quote(str(self._wheel)))}\ncode=$?\nenv -0 >.environment\nexit $code"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._folder,
            env=self._environment,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\nended with {done.returncode}:\n{done.stdout}"
        kept = Path(self._folder, ".environment")
        self._environment = dict(
            entry.split("=", 1) for entry in kept.read_text(encoding="utf-8").split("\0") if "=" in entry
        )
        kept.unlink()
        return done.stdout


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """The package, built: by tox already, or now from this checkout."""
    if "TOX_PACKAGE" in os.environ:
        return Path(os.environ["TOX_PACKAGE"])
    folder = tmp_path / "wheel"
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(pages.ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def reader(tmp_path: Path, wheel: Path) -> Iterator[Reader]:
    """Somebody in an empty directory."""
    folder = tmp_path / "empty"
    folder.mkdir()
    somebody = Reader(folder, wheel)
    yield somebody
    somebody.stop()


def log_in(address: str, username: str, password: str) -> urllib.request.OpenerDirector:
    """Log in to an admin once it answers, and return what opens its pages."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            with opener.open(f"{address}login/") as page:
                (token,) = set(re.findall(r'csrfmiddlewaretoken" value="(\w+)"', page.read().decode()))
            break
        except OSError:
            assert time.monotonic() < deadline, f"Nothing answers at {address}."
            time.sleep(0.1)
    form = {"csrfmiddlewaretoken": token, "username": username, "password": password, "next": "/admin/"}
    opener.open(f"{address}login/", urllib.parse.urlencode(form).encode()).close()
    return opener


@pytest.mark.slow
class TutorialTests:
    @pytest.mark.timeout(600)
    def test_does_what_it_says(self, reader: Reader) -> None:
        """Every command succeeds, prints what is shown, and both batches are in the admin at the end."""
        text = pages.read("tutorial.md")
        for block in pages.blocks(text):
            reader.follow(block)
        (address,) = re.findall(r"<(http://[^>]+/admin/)>", text)
        (username, password) = re.findall(r"as `(\w+)` with the password `([^`]+)`", text)[0]
        address = address.replace(PORT, reader.port)
        with log_in(address, username, password).open(f"{address}alya_django/batch/") as page:
            assert page.read().decode().count(">orders.csv<") == 2
        assert set(reader.stop().values()) == {0}
