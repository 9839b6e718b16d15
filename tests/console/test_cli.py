"""The command line as a whole: help that teaches, faults as one sentence, light imports, its reference page."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from console.commands.fleet import FleetOptions, fleet_spec, start_profile
from console.commands.operator import read_config
from console.commands.policies import listed
from console.commands.send import Sent, summarise
from console.main import app
from console.reference import reference_page
from console.telling import Refused
from gateway.client import Result
from policies.registry import TABLES
from runtime.clock import WallClock
from runtime.keyring import Keyring

ROOT = Path(__file__).resolve().parents[2]


def commands(group: Any = None, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for name, command in (group or typer.main.get_command(app)).commands.items():
        inner = hasattr(command, "commands")
        found += commands(command, (*path, name)) if inner else [((*path, name), command)]
    return found


def type_(*words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    told = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"} | (env or {}))
    return told.exit_code, told.stdout, " ".join(told.stderr.split())


def refused(*words: str) -> str:
    code, out, err = type_(*words)
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    return err


class TestHelp:
    @pytest.mark.parametrize(("path", "command"), commands(), ids=[" ".join(path) for path, _ in commands()])
    def test_every_command_says_what_it_is_for_and_what_each_option_means(
        self, path: tuple[str, ...], command: Any
    ) -> None:
        code, out, _ = type_(*path, "--help")
        assert code == 0
        assert "Usage: " in out
        assert len(command.help) > 30
        assert command.help.split("\n\n")[0].rstrip().endswith(".")
        assert [each.name for each in command.params if each.name != "help" and not each.help] == []

    def test_the_version(self) -> None:
        assert type_("--version") == (0, "plimsoll 0.1.0\n", "")

    def test_the_reference_page_is_what_the_commands_say(self) -> None:
        page = ROOT / "docs" / "reference" / "cli.md"
        assert page.read_text() == reference_page(), (
            "run: python -m console.reference > docs/reference/cli.md"
        )


class TestWeight:
    @pytest.mark.parametrize("role", ["agent", "gateway"])
    def test_a_role_on_the_nodes_starts_without_solver_database_or_plots(self, role: str) -> None:
        script = f"import sys, console.main, console.commands.{role}; print(*sorted(sys.modules))"
        told = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
        )
        loaded = set(told.stdout.split())
        heavy = {
            "highspy",
            "scipy",
            "sqlalchemy",
            "alembic",
            "matplotlib",
            "prometheus_client",
            "torch",
            "ray",
        }
        assert not loaded & heavy
        rooms = {name.partition(".")[0] for name in loaded}
        assert not rooms & {"controller", "simulator", "placement", "forecasting"}

    def test_help_loads_no_room_at_all(self) -> None:
        script = "import sys, console.main; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
        told = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
        )
        rooms = {
            "agent",
            "cluster",
            "controller",
            "forecasting",
            "gateway",
            "placement",
            "policies",
            "simulator",
        }
        assert not set(told.stdout.split()) & (rooms | {"numpy"})


class TestPki:
    def test_init_makes_what_each_role_needs_for_its_owners_eyes_only(self, tmp_path: Path) -> None:
        folder = tmp_path / "pki"
        code, out, _ = type_(
            "pki",
            "init",
            "--dir",
            str(folder),
            "--node",
            "n1",
            "--gateway",
            "g1",
            "--gateway",
            "g2",
            "-o",
            "json",
        )
        assert code == 0
        made = {(each["role"], each["name"]) for each in json.loads(out)}
        assert made == {
            ("operator", "hub"), ("admin", "admin"), ("client", "client"), ("fleet", "fleet"),
            ("gateway", "g1"), ("gateway", "g2"), ("node", "n1"),
        }  # fmt: skip
        modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*.*") if path.is_file()}
        assert modes == {0o600}
        code, listed_, _ = type_("pki", "list", "--dir", str(folder), "-o", "json")
        assert {(each["role"], each["name"]) for each in json.loads(listed_)} == made

    def test_for_people_it_says_what_comes_next(self, tmp_path: Path) -> None:
        code, out, _ = type_("pki", "init", "--dir", str(tmp_path / "pki"))
        assert code == 0
        assert "gateway-0" in out
        assert "plimsoll operator --pki" in out

    def test_faults_are_sentences(self, tmp_path: Path) -> None:
        folder = str(tmp_path / "pki")
        assert "holds no certificates" in refused("pki", "list", "--dir", folder)
        assert "make one with `plimsoll pki init" in refused("pki", "issue", "node", "n1", "--dir", folder)
        assert type_("pki", "init", "--dir", folder)[0] == 0
        assert "already holds an authority" in refused("pki", "init", "--dir", folder)
        assert "did you mean gateway? choose one of" in refused(
            "pki", "issue", "gatway", "g", "--dir", folder
        )
        assert "cannot be a node's name" in refused("pki", "issue", "node", "../n", "--dir", folder)


class TestPolicies:
    def test_every_policy_is_listed_and_every_setting_explained(self) -> None:
        found = listed()
        assert {(each.loop, each.name) for each in found} == {
            (loop, name) for loop in TABLES for name in TABLES[loop]
        }
        assert all(each.about for each in found)
        unexplained = [(each.name, s.name) for each in found for s in each.settings if not s.about]
        assert not unexplained, "the config's docstring says `name`: meaning. for each field"
        assert {each.loop for each in found if each.default} == set(TABLES)

    def test_settings_show_type_bounds_and_default(self) -> None:
        code, out, _ = type_("policies", "scale", "-o", "json")
        assert code == 0
        (hpa, *_) = json.loads(out)
        target = next(each for each in hpa["settings"] if each["name"] == "target")
        assert target["type"] == "number > 0 ≤ 1"
        assert 0 < target["default"] <= 1
        assert "share of the planned rate" in target["about"]
        code, out, _ = type_("policies")
        assert "hpa (default)" in out

    def test_an_unknown_loop_names_those_there_are(self) -> None:
        assert "did you mean scale? choose one of select, scale" in refused("policies", "scal")


@pytest.fixture
def pki(tmp_path: Path) -> str:
    Keyring(tmp_path / "pki", WallClock()).create()
    return str(tmp_path / "pki")


class TestOperator:
    """What keeps an operator from starting ends with a sentence and 2, whatever had been started before."""

    def start(self, pki: str, tmp_path: Path, *more: str) -> str:
        given = ["--pki", pki, "--ledger", str(tmp_path / "ledger.db"), "--port", "0", "--health-port", "-1"]
        return refused("operator", *given, "--log-level", "error", *more)

    def test_no_certificates(self, tmp_path: Path) -> None:
        assert "plimsoll pki issue operator hub --dir" in self.start(str(tmp_path / "none"), tmp_path)

    def test_a_port_that_is_taken(self, pki: str, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            assert "Is another operator running?" in self.start(pki, tmp_path, "--port", port)
            assert "give another address" in self.start(pki, tmp_path, "--health-port", port)

    @pytest.mark.parametrize(
        ("ledger", "why"),
        [
            (":memory:", "give it a file"),
            ("mysql://x/y", "SQLite or PostgreSQL"),
            ("postgresql+psycopg2://x/y", "through psycopg"),
            ("postgresql://me@db.example/y?sslmode=disable", "in the clear"),
        ],
    )
    def test_a_ledger_that_can_never_work(self, pki: str, tmp_path: Path, ledger: str, why: str) -> None:
        assert why in self.start(pki, tmp_path, "--ledger", ledger)

    def test_a_bad_manifest(self, pki: str, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("kind: Nothing\napiVersion: v1\n")
        assert "a.yaml:1: there is no kind 'Nothing' here" in self.start(
            pki, tmp_path, "-f", str(tmp_path / "a.yaml")
        )

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            pytest.param(["--enrol-listen", "127.0.0.1:9"], "needs --ca-dir", id="no root"),
            pytest.param(["--ca-dir", "{tmp}/none"], "No usable authority in", id="a root that is not there"),
            pytest.param(
                ["--ca-dir", "{pki}/authority", "--enrol-listen", "here"],
                "--enrol-listen 'here' is no address",
                id="no address",
            ),
            pytest.param(
                ["--ca-dir", "{pki}/authority", "--enrol-listen", "127.0.0.1:9", "--agent-account", "agent"],
                "write NAMESPACE/NAME",
                id="an account without its namespace",
            ),
            pytest.param(
                [
                    "--ca-dir",
                    "{pki}/authority",
                    "--enrol-listen",
                    "127.0.0.1:9",
                    "--kubeconfig",
                    "{tmp}/none",
                ],
                "There is no kubeconfig at",
                id="no API server to ask",
            ),
        ],
    )
    def test_enrolment_that_cannot_be_offered(
        self, pki: str, tmp_path: Path, given: list[str], why: str
    ) -> None:
        words = [each.format(pki=pki, tmp=tmp_path) for each in given]
        assert why in self.start(pki, tmp_path, *words)

    def test_an_unknown_log_level(self, pki: str, tmp_path: Path) -> None:
        assert "Unknown log level 'loud'" in self.start(pki, tmp_path, "--log-level", "loud")

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("plan_second: 3", "unknown field `plan_second`"),
            ("plan_seconds: -1", "> 0.0 - at `$.plan_seconds`"),
            ("policies: {scale: {name: hpb}}", "no scale policy is called 'hpb'; use one of hpa"),
            ("policies: {scale: {name: hpa, config: {target: 7}}}", "config.target"),
            ("policies: {size: {name: hpa}}", "no loop is called 'size'"),
            ("- 1", "Expected `object`"),
            ("a: [", "config.yaml:2:"),
        ],
    )
    def test_settings_are_read_strictly(self, tmp_path: Path, text: str, why: str) -> None:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        with pytest.raises(Refused) as caught:
            read_config(path)
        assert why in str(caught.value)
        assert "config.yaml" in str(caught.value)

    def test_good_settings(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text("plan_seconds: 2\nseed: 4\npolicies: {scale: {name: hpa, config: {target: 0.5}}}\n")
        config = read_config(path)
        assert (config.plan_seconds, config.seed, config.threaded) == (2.0, 4, True)
        assert read_config(path, seed=9).seed == 9
        assert read_config(None).threaded


class TestOtherRoles:
    def test_no_certificate_and_no_authority(self, tmp_path: Path) -> None:
        none = ["--pki", str(tmp_path / "none"), "--log-level", "error"]
        assert "plimsoll pki issue node n1" in refused(
            "agent", "--node", "n1", "--driver", "simulated", *none
        )
        assert "plimsoll pki issue gateway gateway-0" in refused("gateway", "--port", "0", *none)
        assert "plimsoll pki init" in refused("fleet", *none)

    def test_words_nobody_knows(self, pki: str) -> None:
        known = ["--pki", pki, "--log-level", "error"]
        assert "There is no driver 'rocm'" in refused("agent", "--node", "n1", "--driver", "rocm", *known)
        simulated = ["agent", "--node", "n1", "--driver", "simulated"]
        assert "There is no GPU 'l40'; did you mean l40s? choose" in refused(
            *simulated, "--gpu", "L40", *known
        )
        assert "neither `demo` nor a number" in refused("fleet", "--nodes", "many", *known)
        assert "write HOST:PORT" in refused("fleet", "--operator", "nowhere", *known)
        assert "--enrol 'nowhere' is no address" in refused(*simulated, "--enrol", "nowhere", *known)

    def test_nvml_without_its_library(self, pki: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
        assert "install plimsoll[agent]" in refused(
            "agent", "--node", "n1", "--pki", pki, "--log-level", "error"
        )


class TestFleetSpec:
    def options(self, **more: Any) -> FleetOptions:
        return FleetOptions(operator="127.0.0.1:1", pki=Path("pki"), **({"nodes": "6"} | more))

    def test_so_many_alike(self) -> None:
        spec = fleet_spec(self.options(gpu="l4", gpus=4, seed=5))
        assert [node.name for node in spec.nodes] == [f"node-000{i}" for i in range(6)]
        assert {(node.gpu.product, node.gpus) for node in spec.nodes} == {("L4", 4)}
        assert spec.seed == 5

    def test_the_demos_machines_can_start_quickly_too(self) -> None:
        real, quick = (fleet_spec(self.options(nodes="demo", start_seconds=s)) for s in (0.0, 2.0))
        assert len(real.nodes) == len(quick.nodes) == 24
        assert quick.start.engine_seconds < real.start.engine_seconds
        assert quick.nodes == real.nodes

    def test_a_start_takes_about_what_was_asked(self) -> None:
        start = start_profile(10.0)
        assert start is not None
        stages = (start.container_seconds, start.process_seconds, start.engine_seconds, start.warm_up_seconds)
        assert sum(stages) == pytest.approx(10.0)
        assert start_profile(0.0) is None


class TestSend:
    def result(self, outcome: str, code: str = "", at: float = 0.0) -> Sent:
        return Sent(100.0, Result(1, outcome, code, "", "shop/chat-1", 100.0 + at, 102.0 + at, 7, 1, 0.0))

    def test_the_summary_counts_each_once(self) -> None:
        summary = summarise(
            [self.result("served", at=1.0), self.result("rejected", "HoldFull"), self.result("lost")]
        )
        assert [summary[key] for key in ("sent", "served", "rejected", "lost", "retried")] == [3, 1, 1, 1, 3]
        assert summary["first_token_seconds"] == {"p50": 1.0, "p95": 1.0, "p99": 1.0}
        assert summary["why_not"] == {"": 1, "HoldFull": 1}

    def test_nothing_served_has_no_latency(self) -> None:
        assert summarise([self.result("lost")])["first_token_seconds"] == {}

    def test_faults_are_sentences(self, pki: str) -> None:
        assert "write NAMESPACE/NAME, such as default/chat" in refused("send", "chat", "--pki", pki)
        away = ["--gateway", "127.0.0.1:1", "--pki", pki]
        assert "gateway at 127.0.0.1:1 cannot be reached" in refused("send", "default/chat", *away)
