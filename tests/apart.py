"""Copy what the tests need, but not the package: ``python tests/apart.py TARGET``; so they meet the installed one."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("benchmarks", "docs", "example_project", "tests")
FILES = ("README.md", "manage.py", "pyproject.toml", "tox.ini")

target = Path(sys.argv[1])
shutil.rmtree(target, ignore_errors=True)
target.mkdir(parents=True)
for folder in FOLDERS:
    shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
for file in FILES:
    shutil.copy(ROOT / file, target / file)
