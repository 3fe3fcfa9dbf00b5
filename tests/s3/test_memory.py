"""A large output file, saved and read back by a process that is measured."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.s3.copy_file import TEXT

pytestmark = [pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
MEGABYTES = 300


class MemoryTests:
    @pytest.mark.rule("OUT-6")
    def test_does_not_grow_with_the_file(self, s3, tmp_path) -> None:
        """A file of 300 MB goes there in parts and comes back whole, in a tenth of its size."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.s3.copy_file", str(MEGABYTES)],
            cwd=ROOT,
            env={
                **os.environ,
                **s3.environment,
                "DJANGO_SETTINGS_MODULE": "example_project.settings",
                "SECRET_KEY": "tests need no secret",
                "VAR_DIR": str(tmp_path),
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        digest = hashlib.sha256()
        for _ in range(MEGABYTES):
            digest.update(f"{TEXT[:-1]}\n".encode())
        assert (told["size"], told["lines"], told["sha256"]) == (300_000_000, MEGABYTES, digest.hexdigest())
        assert told["recorded"] == [told["size"], told["sha256"]]
        parts = s3.client().head_object(Bucket=s3.bucket, Key=told["name"], PartNumber=1)["PartsCount"]
        assert parts == 36
        assert told["saving"] < 30_000_000
        assert told["reading"] < 10_000_000
