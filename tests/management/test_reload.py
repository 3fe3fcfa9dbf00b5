from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from alya_django.management import reload


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Two modules' files, one of which is gone already."""
    paths = [tmp_path / "a.py", tmp_path / "gone.py"]
    paths[0].write_text("")
    monkeypatch.setattr(reload, "iter_all_python_module_files", lambda: paths)
    return paths


class ReloadTests:
    def test_sees_a_file_that_has_changed(self, files: list[Path], tmp_path: Path) -> None:
        """One that was loaded later is none that has changed, until it does."""
        seen = reload.Files()
        assert not seen.have_changed()
        files.append(tmp_path / "later.py")
        files[2].write_text("")
        assert not seen.have_changed()
        os.utime(files[2], (1, 1))
        assert seen.have_changed()

    def test_begins_anew_with_the_same_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The process is replaced by one that was started alike."""
        begun = []
        monkeypatch.setattr(os, "execv", lambda *arguments: begun.append(arguments))
        reload.begin_anew()
        assert begun == [(sys.executable, sys.orig_argv)]
