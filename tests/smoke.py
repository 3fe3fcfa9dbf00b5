"""
Install a wheel into an empty Django project, and send a batch through it: ``python -m tests.smoke WHEEL``.

The project is made by ``django-admin startproject`` in a temporary directory, on SQLite; nothing of this checkout but
the wheel is in reach.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROCESSORS = """
from alya_django import Row, RowFailed, register_batch_processor


@register_batch_processor("shop", "price")
def price(row: Row):
    if row.input["amount"] < 0:
        raise RowFailed("negative", field="amount")
    return {"with_tax": row.input["amount"] * 2}
"""
APPS = """
from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        from shop import processors
"""
SETTINGS = """
INSTALLED_APPS += ["alya_django", "shop"]
DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
"""
SUBMIT = """
from alya_django import batches
print(batches.submit("shop", "price", [{"amount": 1}, {"amount": -1}, {"amount": 3}]))
"""
CHECK = """
from alya_django import Status, batches
result = batches.result("{batch_id}")
assert (result.status, result.nsuccess, result.nfailed) == (Status.FAILED, 2, 1), result
assert [row.result for row in result.rows] == [{{"with_tax": 2}}, None, {{"with_tax": 6}}], result
assert result.rows[1].messages[0].errcode == "negative", result
"""


def main(wheel: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="alya-smoke-") as folder:
        python = Path(folder, "venv", "bin", "python")
        venv.create(python.parents[1], with_pip=True)
        run(folder, python, "-m", "pip", "install", "--quiet", f"{wheel.resolve()}", "psycopg[binary]")
        run(folder, python, "-m", "django", "startproject", "site1", folder)
        shop = Path(folder, "shop")
        shop.mkdir()
        Path(shop, "__init__.py").touch()
        Path(shop, "apps.py").write_text(APPS)
        Path(shop, "processors.py").write_text(PROCESSORS)
        with Path(folder, "site1", "settings.py").open("a") as settings:
            settings.write(SETTINGS)
        manage = (python, "-W", "error", "manage.py")
        run(folder, *manage, "check")
        run(folder, *manage, "migrate", "--verbosity", "0")
        batch_id = run(folder, *manage, "shell", "--no-imports", "--command", SUBMIT).strip()
        run(folder, *manage, "alya_worker", "--drain")
        run(folder, *manage, "shell", "--no-imports", "--command", CHECK.format(batch_id=batch_id))
        version = run(folder, python, "-c", "import django; print(django.__version__)").strip()
    print(f"{wheel.name} works in an empty project on Django {version}.")


def run(folder: str, *command: str | Path) -> str:
    """Run a command in the project and return what it printed; stop with its output if it fails."""
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
