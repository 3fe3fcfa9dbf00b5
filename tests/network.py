"""A way to a server that can be cut, be slow, or lead to somebody who refuses."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIECE_BYTES = 65_536
# Closed like this, a connection is reset: the other end is told at once.
RESET = struct.pack("ii", 1, 0)


class Proxy:
    """
    A port that leads to another one, for as long as a test wants.

    ``cut`` keeps what is sent from getting anywhere, and nobody is told; ``break_off`` ends the connections and
    refuses new ones; ``restore`` lets all through again. Of an answer, the first piece is ``delay_seconds`` late. With
    an ``answer`` of its own it passes nothing on and says that instead.
    """

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_whole = threading.Event()
        self._is_closed = threading.Event()
        self._refuses = False
        self.delay_seconds = 0.0
        self.answer = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._is_whole.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through, the connections open; new ones are made and hear nothing."""
        self._is_whole.clear()

    def break_off(self) -> None:
        """Reset all connections, and each that is made from now on."""
        self._refuses = True
        with self._lock:
            for connection in self._open:
                # Not closed, which would not wake whoever reads: it is that thread's to close.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._is_whole.set()

    def restore(self) -> None:
        """Let everything through from now on."""
        self._refuses = False
        self._is_whole.set()

    def close(self) -> None:
        """End it all."""
        self._is_closed.set()
        # Who waits for a connection is not woken by a close.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.break_off()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near:
            if self._refuses:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            elif self.answer:
                self._say(near)
            else:
                self._connect(near)

    def _say(self, near: socket.socket) -> None:
        with suppress(OSError):
            near.recv(PIECE_BYTES)
            near.sendall(self.answer)
            near.shutdown(socket.SHUT_WR)
            while near.recv(PIECE_BYTES):
                pass

    def _connect(self, near: socket.socket) -> None:
        with suppress(OSError), socket.create_connection(self._to) as far:
            with self._lock:
                self._open |= {near, far}
            is_new = threading.Event()
            back = threading.Thread(target=self._pass_on, args=(far, near, is_new), daemon=True)
            back.start()
            self._pass_on(near, far, is_new, is_question=True)
            back.join()
            with self._lock:
                self._open -= {near, far}

    def _pass_on(
        self, source: socket.socket, target: socket.socket, is_new: threading.Event, *, is_question: bool = False
    ) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                if is_question:
                    is_new.set()
                elif is_new.is_set():
                    is_new.clear()
                    self._is_closed.wait(self.delay_seconds)
                self._is_whole.wait()
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """Open a way to a server."""
    opened = Proxy(host, port)
    try:
        yield opened
    finally:
        opened.close()
