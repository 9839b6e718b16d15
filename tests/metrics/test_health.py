"""Probes and metrics over real HTTP on loopback."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from controller import health
from controller.health import Checks, HealthServer, Probe, Pulse
from controller.metrics import Metrics


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
def server(checks: Checks) -> Iterator[HealthServer]:
    served = HealthServer(checks, Metrics("1.2.3").page)
    served.start()
    yield served
    served.close()


def get(
    server: HealthServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(server.url + path, headers=names, method=method)  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def broken() -> str:
    raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("probe", "check", "healthz", "readyz", "line"),
    [
        pytest.param(Probe.LIVE, lambda: "", 200, 200, "ok: store", id="all is well"),
        pytest.param(
            Probe.LIVE, lambda: "it hangs.", 503, 503, "failed: store: it hangs.", id="a restart would help"
        ),
        pytest.param(
            Probe.READY, lambda: "no answer.", 200, 503, "failed: store: no answer.", id="not ready"
        ),
        pytest.param(
            Probe.WARN, lambda: "it is full.", 200, 200, "warning: store: it is full.", id="only a warning"
        ),
        pytest.param(
            Probe.READY,
            broken,
            200,
            503,
            "failed: store: the check itself failed: KeyError: 'no such thing'",
            id="the check itself fails",
        ),
        pytest.param(
            Probe.READY, lambda: "two\nlines", 200, 503, "failed: store: two lines", id="a reason is one line"
        ),
    ],
)
def test_probes_answer_with_the_status_and_the_reason(
    server, checks, probe, check, healthz, readyz, line
) -> None:
    checks.add("hub", lambda: "", Probe.READY)
    checks.add("store", check, probe)
    assert get(server, "/healthz")[0] == healthz
    status, headers, body = get(server, "/readyz")
    assert status == readyz
    assert headers["Content-Type"].startswith("text/plain")
    assert body.decode().splitlines() == ["ok" if readyz == 200 else "failed", "ok: hub", line]


def test_one_that_stands_by_is_ready_and_says_so() -> None:
    """A Deployment of two is otherwise never available; which one serves is for a Service's selector."""
    states = iter(["standby: another leads", "standby: another leads", ""])
    checks = Checks(state=lambda: next(states))
    checks.add("store", lambda: "")
    assert checks.ready().text() == "standby: another leads\nok: store\n"
    checks.add("elector", lambda: "it hangs.", Probe.LIVE)
    assert checks.ready().text().startswith("failed\n")
    assert not checks.live().ok
    checks.add("elector", lambda: "", Probe.LIVE)
    assert checks.ready().text().startswith("ok\n")


def test_a_program_gets_json(server, checks) -> None:
    checks.add("ledger", lambda: "database is locked", Probe.WARN)
    status, headers, body = get(server, "/readyz?verbose", Accept="application/json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == {
        "ok": True,
        "state": "",
        "checks": [{"check": "ledger", "probe": "warn", "status": "warning", "reason": "database is locked"}],
    }


def test_metrics_are_served_plain_packed_and_as_openmetrics(server) -> None:
    status, headers, body = get(server, "/metrics")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert b'plimsoll_build_info{python="' in body
    assert int(headers["Content-Length"]) == len(body)
    _, headers, packed = get(
        server, "/metrics", Accept_Encoding="gzip", Accept="application/openmetrics-text"
    )
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert gzip.decompress(packed).endswith(b"# EOF\n")
    assert len(packed) < len(body)


def test_a_metrics_page_that_cannot_be_made_is_an_error_and_the_probes_go_on(checks, caplog) -> None:
    def page(_: str) -> tuple[bytes, str]:
        raise RuntimeError("no page")

    served = HealthServer(checks, page)
    served.start()
    try:
        assert get(served, "/metrics")[0] == 500
        assert get(served, "/healthz")[0] == 200
    finally:
        served.close()
    assert "could not be made" in caplog.text


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        pytest.param("/", "GET", 404, id="no such page"),
        pytest.param("/metrics/../etc/passwd", "GET", 404, id="no way out"),
        pytest.param("/metrics", "POST", 501, id="nothing is taken"),
        pytest.param("/" + "a" * 70_000, "GET", 414, id="an absurd path"),
    ],
)
def test_anything_else_is_refused(server, path: str, method: str, status: int) -> None:
    assert get(server, path, method)[0] == status
    assert get(server, "/healthz")[0] == 200


def test_a_head_request_has_no_body(server) -> None:
    host, port = server.address
    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request("HEAD", "/metrics")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 1000
    connection.close()


def test_it_listens_on_loopback_unless_told_otherwise(server) -> None:
    assert server.address[0] == "127.0.0.1"


def test_it_serves_ipv6_too(checks) -> None:
    try:
        served = HealthServer(checks, Metrics("1").page, host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    served.start()
    try:
        assert served.url.startswith("http://[::1]:")
        assert get(served, "/healthz")[0] == 200
    finally:
        served.close()


def test_a_taken_port_is_an_error_that_names_it(server, checks) -> None:
    host, port = server.address
    with pytest.raises(OSError, match=rf"{host}:{port} \(Address already in use\): give another address"):
        HealthServer(checks, Metrics("1").page, port=port)


def test_closing_frees_the_port_finishes_what_is_being_answered_and_may_be_repeated(checks) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> str:
        entered.set()
        go_on.wait(5)
        return ""

    checks.add("slow", slow)
    served = HealthServer(checks, Metrics("1").page)
    served.start()
    host, port = served.address
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(get(served, "/readyz")[0]))
    asking.start()
    assert entered.wait(5)
    closing = threading.Thread(target=served.close)
    closing.start()
    time.sleep(0.1)
    assert closing.is_alive(), "it waits for the answer"
    go_on.set()
    closing.join(5)
    asking.join(5)
    assert answers == [200]
    served.close()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((host, port))
    assert not [thread for thread in threading.enumerate() if thread.name == "plimsoll-health"]


def test_clients_that_never_finish_their_request_neither_block_the_probes_nor_the_end(
    checks, monkeypatch
) -> None:
    monkeypatch.setattr(health, "REQUEST_TIMEOUT_SECONDS", 0.5)
    served = HealthServer(checks, Metrics("1").page)
    served.start()
    idle = [socket.create_connection(served.address) for _ in range(health.REQUESTS_AT_ONCE + 10)]
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.05):
            for connection in idle:
                try:
                    connection.send(b"G")
                except OSError:
                    continue

    trickling = threading.Thread(target=trickle)
    trickling.start()
    try:
        deadline = time.monotonic() + 20
        status = 0
        while status != 200 and time.monotonic() < deadline:
            try:
                status = get(served, "/healthz")[0]
            except OSError:
                time.sleep(0.05)
        assert status == 200
    finally:
        stop.set()
        trickling.join()
        begun = time.monotonic()
        served.close()
        assert time.monotonic() - begun < 10.0
        for connection in idle:
            connection.close()


def test_a_pulse_fails_when_the_beat_stops_and_recovers_with_it() -> None:
    now = [100.0]
    pulse = Pulse("The decision loop", 30.0, lambda: now[0])
    now[0] += 30.0
    assert pulse() == ""
    now[0] += 1.5
    assert pulse() == "The decision loop last ran 31.5 s ago; 30 s is the limit."
    pulse.beat()
    assert pulse() == ""


def test_a_check_of_the_same_name_replaces_the_one_before(checks) -> None:
    checks.add("store", lambda: "away")
    checks.add("store", lambda: "")
    assert checks.ready().ok
    assert len(checks.ready().findings) == 1
