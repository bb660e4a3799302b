"""The wire of the loopback Hub: a socket, requests read whole, answers written, and both broken on demand."""

from __future__ import annotations

import abc
import contextlib
import json
import re
import socket
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from loopback_repo import RefusedError

How = int | Literal["cut request", "cut answer"]


@dataclass(frozen=True)
class Account:
    """Whom a token stands for."""

    name: str
    role: Literal["write", "read"] = "write"


@dataclass
class Fault:
    """What goes wrong with the requests that match, after `skip` of them, `times` times."""

    method: str
    path: str
    how: How
    skip: int
    times: int

    def strikes(self, method: str, path: str) -> bool:
        if self.times == 0 or not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Request:
    """One request as it came, and the status that it was answered with (0: not at all)."""

    method: str
    path: str
    status: int


@dataclass
class Answer:
    """What is answered."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Call:
    """A request, read."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    account: Account | None

    def json(self) -> Any:
        return json.loads(self.body)


class Wire(abc.ABC):
    """A server on 127.0.0.1 that answers, remembers what it was asked, and fails as it is told to."""

    accounts: dict[str, Account]
    """By their tokens."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.errors: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.connections: set[socket.socket] = set()
        self.port = 0
        self.start()

    @abc.abstractmethod
    def answer(self, call: Call) -> Answer:
        """What a request is answered with. May raise RefusedError."""

    def start(self) -> None:
        """Listen, after `stop` at the same address as before."""
        self.server = _Server(("127.0.0.1", self.port), self)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """No network any more: open connections break, new ones are refused."""
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.connections):
            _break(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, method: str, path: str, how: How, *, skip: int = 0, times: int = 1) -> None:
        """Make requests to come fail, those whose method and path (regular expressions) match.

        how: a status such as 429 or 500; "cut request" breaks the connection in the middle of what the client sends,
            and nothing is done; "cut answer" does what is asked and breaks it in the middle of the answer.
        skip: let so many pass first; times: as often. The client itself tries again after a second, where it does.
        """
        self.faults.append(Fault(method, path, how, skip, times))

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests so far whose method and path (regular expressions) match."""
        return [r for r in self.requests if re.fullmatch(method, r.method) and re.search(path, r.path)]


def json_answer(value: Any, status: int = 200) -> Answer:
    """A JSON value as an answer."""
    return Answer(status, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(value).encode())


def _refusal(refused: RefusedError) -> Answer:
    """An error as the Hub words it: the message in a header and in the body."""
    headers = {"X-Error-Message": refused.message.splitlines()[0]}
    if refused.code is not None:
        headers["X-Error-Code"] = refused.code
    body = {"error": refused.message} | {k: v for k, v in refused.extra.items() if not k.startswith("X-")}
    answer = json_answer(body, refused.status)
    answer.headers |= headers | {k: v for k, v in refused.extra.items() if k.startswith("X-")}
    return answer


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side may have been first
        connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], wire: Wire) -> None:
        self.wire = wire
        super().__init__(address, _Handler)

    def handle_error(self, *_: object) -> None:
        """A client that went away is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.wire.connections.add(self.connection)

    def finish(self) -> None:
        self.server.wire.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Nothing: `requests` is the log."""

    def _handle(self) -> None:
        wire, url = self.server.wire, urlsplit(self.path)
        with wire.lock:
            fault = next((f.how for f in wire.faults if f.strikes(self.command, url.path)), None)
        if fault == "cut request":
            if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
                self.rfile.read1(1000)
            self._end(Request(self.command, self.path, 0))
            return
        body = self._body()
        answer = (
            Answer(fault, {"Retry-After": "0"}) if isinstance(fault, int) else self._answer(url.path, url.query, body)
        )
        content = b"" if self.command == "HEAD" else answer.body
        if fault == "cut answer":
            content = content[: len(content) // 2]
        phrase = HTTPStatus(answer.status).phrase
        head = [f"HTTP/1.1 {answer.status} {phrase}", f"Content-Length: {len(answer.body)}", "X-Request-Id: loopback"]
        head += [f"{name}: {value}" for name, value in answer.headers.items()]
        wire.requests.append(Request(self.command, self.path, 0 if fault == "cut answer" else answer.status))
        self.wfile.write("\r\n".join([*head, "", ""]).encode() + content)
        if fault == "cut answer":
            self._end(None)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _answer(self, path: str, query: str, body: bytes) -> Answer:
        wire = self.server.wire
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            if token and token not in wire.accounts:
                raise RefusedError(401, "Invalid credentials in Authorization header")
            call = Call(self.command, path, parse_qs(query), self.headers, body, wire.accounts.get(token))
            with wire.lock:
                return wire.answer(call)
        except RefusedError as refused:
            return _refusal(refused)
        except Exception:
            wire.errors.append(traceback.format_exc())
            return Answer(500)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _end(self, request: Request | None) -> None:
        if request is not None:
            self.server.wire.requests.append(request)
        self.close_connection = True
        _break(self.connection)
