from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


class ProjectTests:
    @pytest.mark.parametrize(
        "case",
        [
            "ordinary",
            "router",
            "naive times",
            "custom user",
            "no admin",
            "persistent connections",
            "connection pool",
            "server-side binding",
            "another schema of times",
        ],
    )
    def test_a_project_that_differs_in_one_thing(self, case, postgresql, tmp_path) -> None:
        """Submit, worker, files, abort, retry and admin, in a project of its own on a database of its own."""
        name = f"compatibility_{case.replace(' ', '_').replace('-', '_')}"
        with psycopg.connect(postgresql.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        story = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tests.compatibility.story"],
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.compatibility.settings",
                "COMPATIBILITY": case,
                "DATABASE_URL": postgresql.url_of(name),
                "VAR_DIR": str(tmp_path),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert story.returncode == 0, story.stdout + story.stderr
        assert story.stdout.splitlines()[-1] == "told"
