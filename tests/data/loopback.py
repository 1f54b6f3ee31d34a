"""An HTTP server on the loopback address that misbehaves on request."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock


@dataclass
class Loopback:
    """What a server gives and how it behaves.

    `files` are contents by path. Each request takes the next of `plan`, in which a number is how many bytes
    to send before the connection is dropped; when it is used up all is well. `requests` are the paths asked
    for, with the Range header.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    plan: list[int | str] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)


def _handler(state: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, wanted = self.path.partition("?")[0], self.headers.get("Range")
            state.requests.append((path, wanted))
            behaviour = state.plan.pop(0) if state.plan else "well"
            if isinstance(behaviour, str) and behaviour.isdigit():
                self.send_error(int(behaviour))
                return
            if path not in state.files:
                self.send_error(404)
                return
            self.answer(state.files[path], wanted, behaviour)

        def answer(self, content: bytes, wanted: str | None, behaviour: int | str) -> None:
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if wanted and behaviour != "ignores range":
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                shift = 3 if behaviour == "wrong piece" else 0
                start = max(0, start - shift)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                content = content[start:]
            else:
                self.send_response(200)
            if behaviour != "no length":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if behaviour == "wrong bytes":
                content = bytes(255 - byte for byte in content)
            if behaviour == "silence":
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                time.sleep(1)
                return
            self.wfile.write(content[:behaviour] if isinstance(behaviour, int) else content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def serving() -> Iterator[Loopback]:
    state = Loopback()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        # A proxy of the machine's must not be asked for what is on the machine itself.
        with mock.patch.dict(os.environ, {"no_proxy": "127.0.0.1"}):
            yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
