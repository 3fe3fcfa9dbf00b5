"""What the tests say and do about programs that a machine lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import programs, services

ROOT = Path(__file__).resolve().parents[1]
FAILING = """
import pytest
from tests.programs import ServiceFailed

@pytest.fixture
def browser():
    raise ServiceFailed("Install a browser.")

def test_page(browser):
    pass

def test_other_page(browser):
    pass

def test_without():
    pass
"""


@pytest.fixture
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has nothing but Python."""
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)


class MissingTests:
    @pytest.mark.usefixtures("_bare")
    def test_names_what_to_do_about_each(self) -> None:
        """By the package of Debian that has it."""
        hints = programs.missing()
        assert hints.keys() >= {"chromium", "pgbouncer"}
        assert all(f"apt-get install {package}" in hints[package] for package in ("chromium", "pgbouncer"))

    def test_says_what_playwright_lacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its Node does not start without a library of the system."""
        monkeypatch.setattr(sys, "executable", "/bin/false")
        programs.playwright.cache_clear()
        with pytest.raises(programs.ServiceFailed, match="libatomic1"):
            programs.playwright()
        programs.playwright.cache_clear()

    @pytest.mark.parametrize(("uid", "has_apt", "installs"), [(0, True, True), (1000, True, False), (0, False, False)])
    def test_installs_where_it_may_and_names_the_rest(self, monkeypatch, capsys, uid, has_apt, installs) -> None:
        """Only as root, and only with apt-get; whatever is missing after that is named."""
        asked: list[list[str]] = []
        monkeypatch.setattr(sys, "argv", ["programs", "--install"])
        monkeypatch.setattr("os.geteuid", lambda: uid)
        monkeypatch.setattr("shutil.which", lambda name, path=None: "/usr/bin/apt-get" if has_apt else None)
        monkeypatch.setattr(programs, "missing", lambda: {"chromium": "Install Chromium."})
        monkeypatch.setattr(programs, "_install", asked.append)
        programs.main()
        assert asked == ([["chromium"]] if installs else [])
        assert "- Install Chromium." in capsys.readouterr().out

    def test_says_nothing_where_nothing_is_missing(self, monkeypatch, capsys) -> None:
        """The end of a run is its report."""
        monkeypatch.setattr(programs, "missing", dict)
        programs.main()
        assert capsys.readouterr().out == ""


class HintTests:
    @pytest.mark.parametrize("processes", [[], ["--numprocesses", "2"]], ids=["alone", "shared"])
    def test_come_last_and_once(self, tmp_path, processes) -> None:
        """Tests that need what is missing are errors, the others run, and the end says what to do."""
        (tmp_path / "test_pages.py").write_text(FAILING)
        options = [
            "-p",
            "no:django",
            "-p",
            "no:randomly",
            "-p",
            "tests.hints",
            "-c",
            "/dev/null",
            "--rootdir",
            tmp_path,
        ]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *processes, tmp_path], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "1 passed, 2 errors" in done.stdout
        assert done.stdout.splitlines()[-1] == "Install a browser."
        assert "INTERNALERROR" not in done.stdout


class ReachTests:
    @pytest.mark.parametrize("is_private", [True, False])
    def test_programs_below_a_private_directory_are_copied(self, monkeypatch, tmp_path, is_private) -> None:
        """A checkout in the home directory of root is closed to the user that servers run as."""

        def run(*arguments, **options):
            if is_private:
                raise PermissionError

        (tmp_path / "install" / "bin").mkdir(parents=True)
        (tmp_path / "install" / "bin" / "pg_ctl").touch()
        (tmp_path / "server").mkdir()
        monkeypatch.setattr("subprocess.run", run)
        found = services._within_reach(tmp_path / "install" / "bin", str(tmp_path / "server"), "nobody")
        assert found.parent.parent == (tmp_path / "server" if is_private else tmp_path)
        assert (found / "pg_ctl").exists()
