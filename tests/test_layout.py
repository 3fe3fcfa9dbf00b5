"""The house rules that a reader relies on, held by looking at the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import alya_django

PACKAGE = Path(alya_django.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
OURS = {name: text for name, text in SOURCES.items() if not name.startswith("migrations/")}


def imports(text: str) -> set[str]:
    """Return the modules that a source imports."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


class LayoutTests:
    def test_rows_are_locked_in_one_place(self) -> None:
        """``select_for_update`` is said in querysets.py alone; by hand, rows are locked where they are claimed."""
        assert [name for name, text in OURS.items() if "select_for_update" in text] == ["querysets.py"]
        by_hand = {name: len(re.findall(r"\bFOR (?:NO KEY )?UPDATE\b", text)) for name, text in OURS.items()}
        assert {name: times for name, times in by_hand.items() if times} == {"db/postgresql.py": 2}

    def test_sql_is_written_under_db(self) -> None:
        """Statements by hand, and cursors, are in db/ and nowhere else."""
        by_hand = re.compile(r"\.cursor\(\)|RawSQL|\.raw\(|\bSELECT [A-Z*]|\bUPDATE \w+ SET|\bINSERT INTO")
        assert {name for name, text in OURS.items() if by_hand.search(text)} <= {
            "db/base.py",
            "db/postgresql.py",
            "db/sqlite.py",
        }

    def test_only_the_admin_knows_the_admin(self) -> None:
        """A project without django.contrib.admin and auth can use the rest."""
        knowing = {
            name
            for name, text in OURS.items()
            if any(module.startswith(("django.contrib.admin", "django.contrib.auth")) for module in imports(text))
        }
        assert all(name.startswith("admin/") for name in knowing)

    def test_the_admin_does_not_know_the_engine(self) -> None:
        """Pages read models and call verbs; they never run rows."""
        for name, text in OURS.items():
            if name.startswith("admin/"):
                assert not [module for module in imports(text) if module.startswith("alya_django.engine")]

    def test_the_package_imports_without_settings_and_models(self) -> None:
        """``import alya_django`` needs neither configured settings nor loaded apps."""
        code = "import alya_django, sys; sys.exit('alya_django.models' in sys.modules)"
        assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0

    def test_all_is_what_is_there(self) -> None:
        """Every public name exists."""
        assert all(hasattr(alya_django, name) for name in alya_django.__all__)
