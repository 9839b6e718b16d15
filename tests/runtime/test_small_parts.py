"""Clocks, back-off, channel options and logging."""

from __future__ import annotations

import io
import json
import logging
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.authority import Authority, Identity, Role
from runtime.channels import NODE_PLANE, Backoff, Limits, channel_options, server_options
from runtime.clock import ClockError, VirtualClock, WallClock, seconds_since_boot
from runtime.logs import LONGEST_TEXT, REDACTED, clean, configure, redact


def test_a_wall_clock_never_steps_back_when_the_date_is_corrected() -> None:
    wall, monotonic = [1_000.0], [50.0]
    clock = WallClock(lambda: wall[0], lambda: monotonic[0])
    assert clock.now() == 1_000.0
    wall[0], monotonic[0] = 400.0, 51.5
    assert clock.now() == 1_001.5
    assert clock.monotonic() == 51.5


def test_time_since_boot_counts_what_the_machine_slept() -> None:
    """Both begin at boot, and only one stands still while the machine is suspended."""
    awake, before = time.monotonic(), seconds_since_boot()
    assert before >= awake - 1e-3
    clock = WallClock(monotonic=seconds_since_boot)
    assert before <= clock.monotonic() <= seconds_since_boot()


def test_a_virtual_clock_stands_until_moved_and_refuses_to_go_back() -> None:
    clock = VirtualClock(1_700_000_000.0)
    assert (clock.now(), clock.monotonic()) == (1_700_000_000.0, 0.0)
    clock.advance_to(1_700_000_001.25)
    clock.advance_to(1_700_000_001.25)
    assert (clock.now(), clock.monotonic()) == (1_700_000_001.25, 1.25)
    for past in (1_700_000_001.0, float("nan")):
        with pytest.raises(ClockError, match="cannot go back"):
            clock.advance_to(past)


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_back_off_stays_in_its_bounds_and_spreads(seed: int, tries: int) -> None:
    backoff = Backoff(random.Random(seed).uniform, base_seconds=0.2, cap_seconds=4.0)
    waits = [backoff.next_seconds() for _ in range(tries)]
    assert all(0.2 <= wait <= 4.0 for wait in waits)
    assert waits[0] <= 0.6
    backoff.reset()
    assert backoff.next_seconds() <= 0.6


def test_a_thousand_agents_do_not_come_back_together() -> None:
    draws = [random.Random(node).uniform for node in range(1000)]
    firsts = sorted(Backoff(draw).next_seconds() for draw in draws)
    busiest = max(sum(1 for each in firsts if at <= each < at + 0.02) for at in firsts)
    assert busiest < 100, "no 20 ms see a tenth of the agents"


def test_every_channel_has_its_own_connection_and_limits() -> None:
    options = dict(channel_options(Limits(receive_bytes=123), Identity(Role.OPERATOR, "hub")))
    assert options["grpc.use_local_subchannel_pool"] == 1
    assert options["grpc.max_receive_message_length"] == 123
    assert options["grpc.ssl_target_name_override"] == "hub.operator.plimsoll.internal"
    assert options["grpc.keepalive_time_ms"] == 10_000
    assert dict(server_options(NODE_PLANE))["grpc.so_reuseport"] == 0


KEY_PEM = Authority.create(WallClock()).issue(Identity(Role.NODE, "n1")).key_pem.decode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"read {KEY_PEM} from disk", id="a private key"),
        pytest.param(KEY_PEM[:120], id="a private key cut short"),
        pytest.param("Authorization: Bearer abc.def-123_x", id="a bearer token"),
        pytest.param("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln", id="a web token"),
        pytest.param("postgresql://plimsoll:hunter2@db/ledger", id="a password in a URL"),
    ],
)
def test_secrets_in_texts_are_redacted(text: str) -> None:
    shown = redact(text)
    assert REDACTED in shown
    for secret in ("hunter2", "c2ln", "abc.def", *KEY_PEM.splitlines()[1:3]):
        assert secret not in shown


def test_secrets_by_name_are_redacted_and_long_texts_cut() -> None:
    facts = clean({"password": "x", "key_pem": b"y", "api_key": "z", "node": "n1", "watts": 5, "gone": None})
    assert facts == {
        "password": REDACTED, "key_pem": REDACTED, "api_key": REDACTED, "node": "n1", "watts": 5, "gone": None,
    }  # fmt: skip
    assert len(redact("x" * 1_000_000)) < LONGEST_TEXT + 40
    assert clean({"tokens": 7}) == {"tokens": 7}, "a count of tokens is no secret"


def test_json_lines_have_facts_and_traces() -> None:
    stream = io.StringIO()
    configure("info", json=True, stream=stream)
    configure("info", json=True, stream=stream)
    logger = logging.getLogger("plimsoll.test")
    logger.debug("not this")
    logger.info(
        "stream lost", extra={"facts": {"node": "n1", "token": "s3cret", "why": Identity(Role.NODE, "n1")}}
    )
    try:
        raise ValueError(f"bad key {KEY_PEM}")
    except ValueError:
        logger.exception("failed")
    lost, failed = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lost["message"] == "stream lost"
    assert lost["level"] == "info"
    assert lost["facts"]["token"] == REDACTED
    assert lost["facts"]["node"] == "n1"
    assert "ValueError" in failed["trace"]
    assert KEY_PEM.splitlines()[1] not in stream.getvalue()


def test_text_lines_are_for_people() -> None:
    stream = io.StringIO()
    configure("INFO", stream=stream)
    logging.getLogger("hub").warning("stream lost", extra={"facts": {"node": "n1", "seconds": 2.5}})
    assert stream.getvalue().rstrip().endswith("WARNING hub: stream lost node=n1 seconds=2.5")


def test_an_unknown_level_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Unknown log level 'LOUD': choose one of CRITICAL"):
        configure("LOUD")
