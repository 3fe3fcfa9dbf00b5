from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


class BenchmarkTests:
    @pytest.mark.parametrize(
        ("name", "keys"),
        [
            ("submit", {"rows_per_s", "copy_rows_per_s", "ratio", "rss_growth_mb"}),
            ("throughput", {"rows_per_s", "loop_rows_per_s", "ratio", "processes"}),
        ],
    )
    def test_ends_in_a_line_of_json(self, name, keys) -> None:
        """On few rows a benchmark proves nothing but that it runs: its last line is one JSON object."""
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", "--rows", "2000", "--rounds", "1"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout.splitlines()[-1]).keys() >= keys
