"""
How much memory a file can cost that is made to cost much: ``python -m benchmarks.fuzz --bombs``.

Each bomb of ``tests.intake.bombs`` is uploaded and looked at in a process as a web server's, and received by an
``alya_watch`` that finds it with an honest file behind. Of both processes, and of those that they start, the largest
memory is read several times a second; what the first two have when idle is taken off.

``web_mb`` and ``watch_mb`` are of the worst bomb, and ``reader_mb`` of the processes that read workbooks, which have a
limit of their own; ``lost`` are honest files that were not received, ``dead`` processes that a bomb has ended.

Budget: ``web_mb`` and ``watch_mb`` 300 at most, nothing lost, nobody dead.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import harness
from tests.intake.bombs import BOMBS

MEGABYTE = 1e6
SAMPLE_SECONDS = 0.01
SECONDS_MAX = 300
LIMIT_MB = 300
HONEST = b"account,amount,reference\nDE1,1.00,a\n"
WATCH = [
    "-m",
    "django",
    "alya_watch",
    "--once",
    "--age",
    "0",
    "--match",
    "*.plain=plain",
    "--match",
    "*.sheets=sheets",
]


class Peak(NamedTuple):
    """The largest memory of a process and of those that it started, in megabytes, and how it ended."""

    own: float
    others: float
    code: int


def run() -> None:
    """Measure every bomb, and report the worst."""
    with tempfile.TemporaryDirectory(prefix="alya-bombs-") as folder, harness.alya():
        directory = Path(folder, "in")
        directory.mkdir()
        idle_web, idle_watch = look(folder, "plain", HONEST), watch(directory, "plain", HONEST)
        worst = {"web_mb": 0.0, "watch_mb": 0.0, "reader_mb": 0.0}
        lost = dead = 0
        for name, (file_type, write) in BOMBS.items():
            path = Path(folder, "bomb")
            with path.open("wb") as file:
                write(file)
            content = path.read_bytes()
            web, watched = look(folder, file_type, content), watch(directory, file_type, content)
            figures = {
                "web_mb": web.own - idle_web.own,
                "watch_mb": watched.own - idle_watch.own,
                "reader_mb": max(web.others, watched.others),
            }
            print(f"{name:<26}{len(content):>12,} bytes", *(f"{key} {value:,.0f}" for key, value in figures.items()))
            worst = {key: max(value, figures[key]) for key, value in worst.items()}
            dead += bool(web.code) + bool(watched.code)
            lost += len(list(directory.iterdir())) > 1
    harness.report("files made to hurt", {"bombs": len(BOMBS), **worst, "lost": lost, "dead": dead})
    sys.exit(bool(lost or dead or max(worst["web_mb"], worst["watch_mb"]) > LIMIT_MB))


def look(folder: str, file_type: str, content: bytes) -> Peak:
    """Upload a file and look at it in a process of its own."""
    path = Path(folder, "upload")
    path.write_bytes(content)
    return peak([sys.executable, "-m", "benchmarks.bombs", file_type, str(path)])


def watch(directory: Path, file_type: str, content: bytes) -> Peak:
    """Have a file received that arrives in a directory before an honest one."""
    (directory / f"a.{file_type}").write_bytes(content)
    (directory / "b.plain").write_bytes(HONEST)
    return peak([sys.executable, *WATCH, str(directory)])


def peak(command: list[str]) -> Peak:
    """Run a command and return how large it and its children became."""
    own = others = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + SECONDS_MAX
        measured = psutil.Process(process.pid)
        while process.poll() is None:
            if time.monotonic() > until:
                process.kill()
            with suppress(psutil.Error):
                own = max(own, measured.memory_info().rss / MEGABYTE)
                for child in measured.children(recursive=True):
                    others = max(others, child.memory_info().rss / MEGABYTE)
            time.sleep(SAMPLE_SECONDS)
    return Peak(own, others, process.returncode)


def upload(file_type: str, path: str) -> None:
    """Do what the page of uploads does with a file."""
    import django

    django.setup()
    from alya_django.checkers import checkers
    from alya_django.intake import preview, uploads

    checker = checkers.find(file_type)
    assert checker is not None
    with open(path, "rb") as file:
        token = uploads.keep(file, file_name="bomb", checker=checker, uploaded_by="a")
    record = uploads.find(token).file
    if record.is_accepted is None:
        preview.look(record, checker)


if __name__ == "__main__":
    upload(*sys.argv[1:])
