"""
Copy all of the project but the package, so that tests meet the installed one: ``python tests/apart.py TARGET``.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ("alya_django", ".*", "dist", "htmlcov", "var", "__pycache__")

target = Path(sys.argv[1])
shutil.rmtree(target, ignore_errors=True)
shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
