"""`/metrics`, `/healthz` and `/readyz` over HTTP, for probes, Prometheus and people.

`/healthz` asks whether the process should be restarted, `/readyz` whether it does its work; both answer 200 or 503
with one line a check and the reason of whatever fails, or JSON when asked for (`Accept: application/json`). Checks
are plain callables; a check that only warns (the ledger is away: history is lost, safety is not) is shown and
changes no status. Listens on the loopback address unless told otherwise, with a bounded number of requests at once.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, SHUT_RDWR, socket
from typing import Any
from urllib.parse import urlsplit

import msgspec

log = logging.getLogger("plimsoll.health")

Check = Callable[[], str]
"""Answers with an empty string when all is well, else with a sentence. Must not block."""

Page = Callable[[str], tuple[bytes, str]]
"""The metrics page and its content type, for the request's Accept header."""

REQUEST_TIMEOUT_SECONDS = 5.0
REQUESTS_AT_ONCE = 16
_GZIP_FROM_BYTES = 1024


class Probe(StrEnum):
    """What a check decides."""

    LIVE = "live"
    """Failing makes `/healthz` fail: a restart would help. Shown by `/readyz`, which fails too."""
    READY = "ready"
    """Failing makes `/readyz` fail."""
    WARN = "warn"
    """Shown by `/readyz`, fails nothing."""


class Finding(msgspec.Struct, frozen=True):
    """One check's answer; `reason` is empty when it is well."""

    check: str
    probe: Probe
    reason: str

    @property
    def mark(self) -> str:
        """`ok`, `warning` or `failed`."""
        return "ok" if not self.reason else "warning" if self.probe is Probe.WARN else "failed"


class Report(msgspec.Struct, frozen=True):
    """Answer of a probe: `ok` as a whole, and each check's finding. `state` says in words what the process does
    when it is well and does not do everything (one that stands by for its turn); empty otherwise.
    """

    ok: bool
    findings: tuple[Finding, ...]
    state: str = ""

    def text(self) -> str:
        """One line for the whole, one for each check."""
        lines = [(self.state or "ok") if self.ok else "failed"]
        lines += [
            f"{each.mark}: {each.check}" + (f": {each.reason}" if each.reason else "")
            for each in self.findings
        ]
        return "\n".join(lines) + "\n"

    def json(self) -> bytes:
        """The same as JSON: `{"ok": …, "state", "checks": [{"check", "probe", "status", "reason"}]}`."""
        checks = [
            {"check": each.check, "probe": each.probe.value, "status": each.mark, "reason": each.reason}
            for each in self.findings
        ]
        return msgspec.json.encode({"ok": self.ok, "state": self.state, "checks": checks})


class Checks:
    """The registered checks, in the order in which they came.

    `state` is asked by `/readyz`: a process that stands by is ready (a Deployment of two would never be otherwise),
    and says so in the first line; which one serves is for a Service's selector, not for readiness.
    """

    def __init__(self, state: Check = lambda: "") -> None:
        self._state = state
        self._checks: dict[str, tuple[Probe, Check]] = {}

    def add(self, name: str, check: Check, probe: Probe = Probe.READY) -> None:
        """Register a check; one of the same name is replaced."""
        self._checks[name] = (probe, check)

    def live(self) -> Report:
        """Whether the process should go on."""
        return self._ask({Probe.LIVE})

    def ready(self) -> Report:
        """Whether the process does its work."""
        return msgspec.structs.replace(self._ask(set(Probe)), state=_answer(self._state))

    def _ask(self, probes: set[Probe]) -> Report:
        findings = tuple(
            Finding(name, probe, _answer(check))
            for name, (probe, check) in list(self._checks.items())
            if probe in probes
        )
        return Report(all(each.mark != "failed" for each in findings), findings)


class Pulse:
    """A check that something goes on happening: fails when the last beat is more than `limit_seconds` ago."""

    def __init__(self, what: str, limit_seconds: float, monotonic: Callable[[], float]) -> None:
        self._what = what
        self._limit_seconds = limit_seconds
        self._monotonic = monotonic
        self._last = monotonic()

    def beat(self) -> None:
        """It happened."""
        self._last = self._monotonic()

    def __call__(self) -> str:
        """The check."""
        silent = self._monotonic() - self._last
        if silent <= self._limit_seconds:
            return ""
        return f"{self._what} last ran {silent:.1f} s ago; {self._limit_seconds:g} s is the limit."


class HealthServer:
    """Serves the three pages from a thread of its own. `port` 0 takes a free one (see `address`).

    Raises OSError with a sentence when the address cannot be bound.
    """

    def __init__(self, checks: Checks, metrics: Page, *, host: str = "127.0.0.1", port: int = 0) -> None:
        try:
            self._server = _Server((host, port), checks, metrics)
        except OSError as error:
            raise OSError(
                error.errno,
                f"/metrics and /healthz cannot be served at {host}:{port} ({error.strerror}): give another address",
            ) from error
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    @property
    def url(self) -> str:
        """Its base URL."""
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._server.serve_forever,
                kwargs={"poll_interval": 0.05},
                name="plimsoll-health",
                daemon=True,
            )
            self._thread.start()

    def close(self) -> None:
        """Free the port, and wait for the requests being answered, at most their timeout."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._server.shutdown()
            thread.join()
        self._server.server_close()
        self._server.drain(REQUEST_TIMEOUT_SECONDS)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], checks: Checks, metrics: Page) -> None:
        self.checks = checks
        self.metrics = metrics
        self._slots = threading.BoundedSemaphore(REQUESTS_AT_ONCE)
        self._open: dict[socket, float] = {}
        if ":" in address[0]:
            self.address_family = AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            # More at once than any probe or Prometheus sends: drop it before it costs a thread.
            self.shutdown_request(request)
            return
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.pop(request, None)
            self._slots.release()

    def service_actions(self) -> None:
        """Called many times a second: ends requests that trickle in, byte by byte, to hold their slot."""
        oldest = time.monotonic() - REQUEST_TIMEOUT_SECONDS
        for request, since in list(self._open.items()):
            if since < oldest:
                with contextlib.suppress(OSError):
                    request.shutdown(SHUT_RDWR)

    def drain(self, timeout_seconds: float) -> None:
        """Wait until the requests being answered are, at most that long."""
        until = time.monotonic() + timeout_seconds
        held = 0
        while held < REQUESTS_AT_ONCE and self._slots.acquire(timeout=max(0.0, until - time.monotonic())):
            held += 1
        if held:
            self._slots.release(held)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class asks for it
        log.debug("health: a request from %s ended early", client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "plimsoll"
    sys_version = ""
    timeout = REQUEST_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        """Answer a request for a page."""
        pages: dict[str, Callable[[], None]] = {
            "/metrics": self._metrics,
            "/healthz": lambda: self._report(self.server.checks.live()),
            "/readyz": lambda: self._report(self.server.checks.ready()),
        }
        page = pages.get(urlsplit(self.path).path)
        if page is None:
            listed = ", ".join(pages)
            self._send(
                HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", f"Nothing here; try {listed}.\n".encode()
            )
            return
        page()

    def do_HEAD(self) -> None:
        """Answer with the headers alone."""
        self.do_GET()

    def _metrics(self) -> None:
        try:
            body, content_type = self.server.metrics(self.headers.get("Accept", ""))
        except Exception:
            log.exception("health: the metrics page could not be made")
            text = b"The metrics page could not be made; the log says why.\n"
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", text)
            return
        self._send(HTTPStatus.OK, content_type, body)

    def _report(self, report: Report) -> None:
        status = HTTPStatus.OK if report.ok else HTTPStatus.SERVICE_UNAVAILABLE
        if "application/json" in self.headers.get("Accept", ""):
            self._send(status, "application/json", report.json())
        else:
            self._send(status, "text/plain; charset=utf-8", report.text().encode())

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        packed = len(body) >= _GZIP_FROM_BYTES and "gzip" in self.headers.get("Accept-Encoding", "")
        if packed:
            body = gzip.compress(body, compresslevel=1, mtime=0)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Requests are not news."""
        log.debug("health: %s", format % args)


def _answer(check: Check) -> str:
    try:
        return " ".join(check().split())
    except Exception as error:
        log.exception("health: a check failed to answer")
        return f"the check itself failed: {type(error).__name__}: {error}"
