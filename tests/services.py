"""Throwaway servers for tests and benchmarks, each on a free port of 127.0.0.1, stopped when its block ends."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import programs
from tests.programs import ServiceFailed

SERVER_USERS = ("postgres", "nobody")
START_SECONDS = 30
STARTS = 3
# Below those that systems give to connections: while a server is stopped, none may be given its port.
PORTS = range(20_000, 32_000)
# Nobody's seed: tests that share a machine begin with the same one.
DICE = random.SystemRandom()


@dataclass(frozen=True)
class PostgreSQL:
    """A running server with one empty database."""

    host: str
    port: int
    name: str = "alya"
    user: str = "alya"
    log: Path = Path(os.devnull)
    data: Path = Path(os.devnull)
    programs: Path = Path(os.devnull)
    run_as: str | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._control("-l", self.log, "-t", "60", "-o", f"-p {self.port}", "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server: every connection ends. ``immediate`` is a crash, ``fast`` is what an operator does."""
        self._control("-m", mode, "stop")

    def _control(self, *arguments: str | Path) -> None:
        _run([self.programs / "pg_ctl", "-D", self.data, "-w", *arguments], self.run_as)

    def statements_logged(self) -> int:
        """Return how many statements the log has, where the server logs them."""
        text = self.log.read_text(errors="replace")
        return text.count("LOG:  statement: ") + text.count("LOG:  execute ")

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
    with tempfile.TemporaryDirectory(prefix="alya-postgresql-") as folder:
        run_as = _unprivileged(folder)
        run = _within_reach(programs.postgresql(), folder, run_as)
        data = Path(folder, "data")
        _run([run / "initdb", "-D", data, "-U", "alya", "-A", "trust", "-E", "UTF8", "--locale=C"], run_as)
        host = "127.0.0.1"
        options = {
            "listen_addresses": host,
            "unix_socket_directories": "",
            "max_connections": 50,
            "shared_buffers": "256MB",
            "max_wal_size": "4GB",
            "fsync": "on" if fsync else "off",
        }
        with Path(data, "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in options.items())
        places = {"log": Path(folder, "log"), "data": data, "programs": run}
        server = _started(lambda: PostgreSQL(host, free_port(), **places, run_as=run_as))
        try:
            _run([run / "createdb", "-h", server.host, "-p", str(server.port), "-U", "alya", "alya"], run_as)
            yield server
        finally:
            server.stop()


class Outages:
    """A server that can be stopped, frozen and brought back while a test runs."""

    def __init__(
        self, command: list[str], answers: Callable[[], bool], log: Path, run_as: str | None = None, **environment: str
    ) -> None:
        self._command = command
        self._answers = answers
        self._log = log
        self._run_as = run_as
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, or let it go on, and wait until it answers."""
        if self._process is None:
            self._process = self._launched()
        else:
            self.thaw()
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise ServiceFailed(f"{self._command[0]} does not answer:\n{self._log.read_text()[-2_000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill the server: nobody answers any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Keep the server from answering, its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _launched(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                user=self._run_as,
                cwd=self._log.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


class Redis(Outages):
    """A Redis, empty whenever it starts."""

    def __init__(self, port: int, folder: Path) -> None:
        self.host, self.port = "127.0.0.1", port
        command = [str(programs.redis()), "--bind", self.host, "--port", str(port), "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "no"]
        super().__init__(command, self._answers_ping, folder / "log")

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def _answers_ping(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class S3(Outages):
    """An S3 server that checks signatures, with one bucket; its objects outlive a stop."""

    bucket = "alya"
    access_key = "alya-test"
    secret_key = "a secret of the tests"

    def __init__(self, ports: list[int], folder: Path) -> None:
        self.host, self.port = "127.0.0.1", ports[0]
        self._ports = ports
        command = [str(programs.s3()), "mini", "-dir", str(folder), "-ip", self.host, "-ip.bind", self.host]
        used = iter(ports)
        for server in ("s3", "master", "volume", "filer"):
            command += [f"-{server}.port", str(next(used)), f"-{server}.port.grpc", str(next(used))]
        command += ["-admin.port", str(next(used)), "-admin.port.grpc", str(next(used)), "-admin.ui=false"]
        command += ["-s3.port.iceberg", "0", "-s3.port.lance", "0", "-webdav=false"]
        command += ["-s3.autoCreateBucket=false", "-master.telemetry=false", "-bucket", self.bucket]
        super().__init__(
            command,
            self._takes_objects,
            folder / "log",
            AWS_ACCESS_KEY_ID=self.access_key,
            AWS_SECRET_ACCESS_KEY=self.secret_key,
        )

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a project that reads its storage from the environment needs."""
        return {
            "S3_ENDPOINT_URL": self.url,
            "S3_BUCKET": self.bucket,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }

    @property
    def options(self) -> dict[str, Any]:
        """The options of an S3Storage on this server."""
        return {
            "endpoint_url": self.url,
            "bucket_name": self.bucket,
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "region_name": "us-east-1",
            "addressing_style": "path",
        }

    def stop(self) -> None:
        """Kill the server, and remove the sockets that it leaves where it says nobody can choose."""
        super().stop()
        for port in self._ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def client(self, **config: Any) -> Any:
        """A client of boto3, to look at the server without a storage."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(**config),
        )

    def _takes_objects(self) -> bool:
        """Tell whether an object can be stored: the parts of the server find each other only after a while."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1})
        try:
            client.put_object(Bucket=self.bucket, Key="ready", Body=b"ready")
            client.delete_object(Bucket=self.bucket, Key="ready")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True


class PgBouncer(Outages):
    """A pooler in transaction mode before a PostgreSQL: clients share two connections, a transaction at a time."""

    def __init__(self, server: PostgreSQL, port: int, folder: Path, run_as: str | None) -> None:
        self.host, self.port = "127.0.0.1", port
        settings = Path(folder, "pgbouncer.ini")
        settings.write_text(
            f"""
            [databases]
            * = host={server.host} port={server.port} user={server.user}
            [pgbouncer]
            listen_addr = {self.host}
            listen_port = {port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = 2
            """.replace("            ", "")
        )
        command = [str(programs.pgbouncer()), "--quiet", str(settings)]
        super().__init__(command, self._is_there, Path(folder, "log"), run_as=run_as)

    def _is_there(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def pgbouncer(server: PostgreSQL) -> Iterator[PgBouncer]:
    """Start a pgbouncer of its own, from what is installed."""
    with tempfile.TemporaryDirectory(prefix="alya-pgbouncer-") as folder:
        run_as = _unprivileged(folder)
        pooler = _started(lambda: PgBouncer(server, free_port(), Path(folder), run_as))
        try:
            yield pooler
        finally:
            pooler.stop()


@contextmanager
def redis() -> Iterator[Redis]:
    """Start a Redis of its own, from what is installed, else from the wheel."""
    with tempfile.TemporaryDirectory(prefix="alya-redis-") as folder:
        server = _started(lambda: Redis(free_port(), Path(folder)))
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def s3() -> Iterator[S3]:
    """Start an S3 server of its own, from what is installed, else from the wheel."""
    with tempfile.TemporaryDirectory(prefix="alya-s3-", ignore_cleanup_errors=True) as folder:
        server = _started(lambda: S3(free_ports(10), Path(tempfile.mkdtemp(dir=folder))))
        try:
            yield server
        finally:
            server.stop()


def _started(make: Callable[[], Any]) -> Any:
    """Make and start a server, once more where another process has taken a port meanwhile."""
    for left in reversed(range(STARTS)):
        server = make()
        try:
            server.start()
        except ServiceFailed:
            if not left:
                raise
        else:
            return server


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return as many different ports that nobody listens on, and that no server loses while it is stopped."""
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            port = DICE.choice(PORTS)
            with suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
    return ports


def _unprivileged(folder: str) -> str | None:
    """Hand a folder to a user that servers run as which refuse root, such as PostgreSQL and pgbouncer."""
    if os.geteuid() != 0:
        return None
    for name in SERVER_USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        return name
    raise ServiceFailed(f"This server does not run as root, and there is no user {' or '.join(SERVER_USERS)}.")


def _within_reach(folder_of_programs: Path, folder: str, run_as: str | None) -> Path:
    """
    Return where a user can run programs: a copy in a folder of theirs, if a directory above the programs is private.

    Such as those of the environment of a checkout in the home directory of root.
    """
    try:
        subprocess.run([folder_of_programs / "pg_ctl", "--version"], user=run_as, cwd="/", stdout=subprocess.DEVNULL)
    except PermissionError:
        owner = Path(folder).stat()
        copy = shutil.copytree(folder_of_programs.parent, Path(folder, "programs"), symlinks=True)
        for path in (copy, *copy.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        return copy / folder_of_programs.name
    return folder_of_programs


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
