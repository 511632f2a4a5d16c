"""A network between browser and server that can be cut."""

import contextlib
import socket
import threading
import time
from typing import Self

from tests.helpers_server import free_port


class Network:
    """Forwards connections to a port. Cut, it ends those that are open and lets no new ones through until mended.

    `allowance` is how many bytes of answers it passes on before it cuts itself, however fast they come; None: any.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._whole = threading.Event()
        self._whole.set()
        self.allowance: int | None = None
        self._listening = socket.create_server(("127.0.0.1", free_port()))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._whole.clear()
        self._listening.close()
        self._end_all()
        with self._lock:
            for each in self._open:
                each.close()

    def cut(self) -> None:
        """End what is open; refuse what comes."""
        self._whole.clear()
        self._end_all()

    def mend(self, allowance: int | None = None) -> None:
        """Let connections through again, as many bytes of answers as are allowed now."""
        self.allowance = allowance
        self._whole.set()

    @property
    def is_cut(self) -> bool:
        return not self._whole.is_set()

    def _end_all(self) -> None:
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if not self._whole.is_set():
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._to))
            with self._lock:
                self._open |= {client, server}
            threading.Thread(target=self._forward, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, True), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        """Pass on what comes until either side ends; then end both."""
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                allowed = self._allowed(chunk) if answers else chunk
                sink.sendall(allowed)
                if len(allowed) < len(chunk):
                    # for the page to read it: a browser's stream that fails drops what nobody has read yet
                    time.sleep(0.5)
                    self.cut()
                    break
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _allowed(self, chunk: bytes) -> bytes:
        """The part of an answer's next bytes that the allowance covers."""
        with self._lock:
            if self.allowance is None:
                return chunk
            allowed = chunk[: self.allowance]
            self.allowance -= len(allowed)
            return allowed
