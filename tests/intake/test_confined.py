"""Programs in processes of their own, and how these end."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.spawn import set_executable
from pathlib import Path
from typing import Any

import psutil
import pytest

from alya_django.intake import confined

READY = "import os, sys, time, signal; print('ready', flush=True);"


@pytest.fixture
def children() -> Callable[[], set[psutil.Process]]:
    """Return what tells which processes have been started since, beside the servers of the tests."""
    before = set(psutil.Process().children())
    return lambda: set(psutil.Process().children()) - before


@pytest.fixture
def lines(tmp_path) -> Any:
    """Return what runs a text as a program, given a text as its standard input."""

    def run(text: str, order: str = "", given: str = "", **options: Any) -> Iterator[bytes]:
        program = tmp_path / "program.py"
        program.write_text(text)
        with tempfile.TemporaryFile() as file:
            file.write(given.encode())
            file.seek(0)
            options = {"seconds": 60, "on_wait": lambda: None, **options}
            yield from confined.lines(program, order, file, **options)

    return run


class LineTests:
    def test_yields_what_it_writes(self, lines):
        """It has its argument, and the file as its standard input; long lines come whole."""
        told = lines(READY + "print(sys.argv[1], sys.stdin.read()); print('x' * 1_000_000)", "order", "content")
        assert list(told) == [b"order content", b"x" * 1_000_000]

    @pytest.mark.rule("FXR-44")
    def test_has_nothing_of_what_starts_it(self, lines, monkeypatch):
        """Neither its secrets nor its files and connections; nor is it asked to stop by what is sent to both."""
        monkeypatch.setenv("DATABASE_URL", "secret")
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        (told,) = lines(
            READY
            + "print(sorted(os.environ.keys() - {'LC_CTYPE'}), sorted(map(int, os.listdir('/proc/self/fd')))[:-1],"
            "os.getsid(0) == os.getpid())"
        )
        os.close(reading)
        os.close(writing)
        names = sorted(name for name in confined.ENVIRONMENT if name in os.environ)
        assert told.decode() == f"{names} [0, 1, 2] True"

    @pytest.mark.rule("FXR-44")
    @pytest.mark.parametrize(
        ("end", "said"),
        [
            ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
            ("os.abort()", "SIGABRT"),
            ("sys.exit(3)", "status 3"),
        ],
    )
    def test_tells_how_it_died(self, lines, end, said):
        """After what it had written."""
        told = lines(READY + f"print('one', flush=True); {end}")
        assert next(told) == b"one"
        with pytest.raises(confined.Died) as caught:
            next(told)
        assert str(caught.value) == said

    @pytest.mark.rule("FXR-44")
    @pytest.mark.parametrize(
        "text",
        ["time.sleep(600)", "[print('one', flush=True) or time.sleep(0.01) for _ in iter(int, 1)]"],
        ids=["silent", "telling"],
    )
    def test_ends_it_when_it_takes_too_long(self, lines, children, text):
        """Whether it is silent or never done."""
        with pytest.raises(confined.TooSlow):
            list(lines(READY + text, seconds=0.3))
        assert not children()

    def test_is_not_hurried_by_who_uses_its_lines(self, lines):
        """Only while it is waited for time passes."""
        waited = []
        told = lines(READY + "sys.stdin.read(); print('one')", seconds=60, on_wait=lambda: waited.append(1))
        assert list(told) == [b"one"]
        assert waited

    @pytest.mark.rule("FXR-44")
    def test_ends_it_when_nobody_wants_more(self, lines, children):
        """Whoever waits can stop at any moment."""

        class Enough(BaseException):
            """What a preview raises."""

        def stop():
            raise Enough

        with pytest.raises(Enough):
            next(lines(READY + "time.sleep(600)", on_wait=stop))
        told = lines(READY + "print('one', flush=True); time.sleep(600)")
        next(told)
        told.close()
        assert not children()


class StartTests:
    @pytest.mark.rule("FXR-45")
    @pytest.mark.parametrize(
        ("executable", "said"),
        [
            ("/bin/false", "'/bin/false' cannot run program.py: status 1. Where it is no Python, "),
            ("/bin/none", "'/bin/none' cannot be started: No such file or directory."),
        ],
    )
    def test_says_what_is_wrong_with_the_machine(self, lines, executable, said):
        """Where Django runs inside another program, this one has to be told where Python is."""
        set_executable(executable)
        try:
            with pytest.raises(confined.NotStarted) as caught:
                next(lines(READY))
        finally:
            set_executable(sys.executable)
        assert str(caught.value).startswith(said)

    @pytest.mark.rule("FXR-45")
    def test_a_program_that_fails_before_it_begins_has_not_started(self, lines):
        """It has read nothing, so no file is at fault."""
        with pytest.raises(confined.NotStarted):
            next(lines("import sys; sys.exit(1)"))


class ParentTests:
    @pytest.mark.rule("FXR-44")
    def test_does_not_outlive_its_parent(self, tmp_path):
        """A process that is killed while a workbook is read takes its reader with it."""
        reading, writing = os.pipe()
        if not (pid := os.fork()):
            _read_for_ever(tmp_path, writing)
        reader = psutil.Process(int(os.read(reading, 100)))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for descriptor in (reading, writing):
            os.close(descriptor)
        reader.wait(30)
        assert not reader.is_running()


def _read_for_ever(folder: Path, writing: int) -> None:
    """Have the real program's way of ending with its parent tried by one that never ends."""
    program = folder / "program.py"
    program.write_text(
        "import os, sys\n"
        f"sys.path.append({str(Path(confined.__file__).parent)!r})\n"
        "import workbook\n"
        "workbook._end_with(int(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "print(os.getpid(), flush=True)\n"
        "while True: pass\n"
    )
    try:
        with tempfile.TemporaryFile() as file:
            for line in confined.lines(program, str(os.getpid()), file, seconds=600, on_wait=lambda: None):
                os.write(writing, line)
    finally:
        os._exit(1)
