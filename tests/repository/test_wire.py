"""The package `wire/` is what the contracts in `proto/` say, flat, typed and never committed."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.repository.tree import ROOT

CONTRACT = """
syntax = "proto3";
package plimsoll.v1;
message Ping { string node = 1; }
message Pong { uint64 epoch = 1; }
service Echo {
  rpc One(Ping) returns (Pong);
  rpc Many(stream Ping) returns (stream Pong);
}
"""
DEPENDENT = """
syntax = "proto3";
package plimsoll.v1;
import "plimsoll/v1/echo.proto";
message Envelope { Ping ping = 1; }
"""


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_wire", ROOT / "tools" / "generate_wire.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def contracts(tmp_path: Path) -> Path:
    folder = tmp_path / "proto" / "plimsoll" / "v1"
    folder.mkdir(parents=True)
    (folder / "echo.proto").write_text(CONTRACT)
    (folder / "envelope.proto").write_text(DEPENDENT)
    return tmp_path / "proto"


def test_wire_is_up_to_date(generator: ModuleType, tmp_path: Path):
    fresh = generator.generate(ROOT / "proto", tmp_path / "wire")
    stale = [path.name for path in fresh if path.read_text() != (ROOT / "wire" / path.name).read_text()]
    extra = (
        {path.name for path in (ROOT / "wire").iterdir()} - {path.name for path in fresh} - {"__pycache__"}
    )
    assert not stale, "run `make setup`: the contracts changed after wire/ was made"
    assert not extra


def test_modules_are_flat_and_import_each_other_from_wire(
    generator: ModuleType, contracts: Path, tmp_path: Path
):
    made = generator.generate(contracts, tmp_path / "wire")
    assert {path.parent for path in made} == {tmp_path / "wire"}
    told = subprocess.run(
        [sys.executable, "-c", "from wire import envelope_pb2 as e, echo_pb2_grpc as g; print(e.Envelope, g.EchoStub)"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "from wire import echo_pb2" in (tmp_path / "wire" / "envelope_pb2.pyi").read_text()


def test_services_are_typed_for_asyncio(generator: ModuleType, contracts: Path, tmp_path: Path):
    generator.generate(contracts, tmp_path / "wire")
    types = (tmp_path / "wire" / "echo_pb2_grpc.pyi").read_text()
    assert "One: grpc.aio.UnaryUnaryMultiCallable[echo_pb2.Ping, echo_pb2.Pong]" in types
    assert "Many: grpc.aio.StreamStreamMultiCallable[echo_pb2.Ping, echo_pb2.Pong]" in types
    assert "-> AsyncIterator[echo_pb2.Pong] | Awaitable[None]: ..." in types


def test_unchanged_modules_are_left_alone_and_gone_ones_removed(
    generator: ModuleType, contracts: Path, tmp_path: Path
):
    wire = tmp_path / "wire"
    generator.generate(contracts, wire)
    before = (wire / "echo_pb2.py").stat().st_mtime_ns
    (contracts / "plimsoll" / "v1" / "envelope.proto").unlink()
    generator.generate(contracts, wire)
    assert (wire / "echo_pb2.py").stat().st_mtime_ns == before
    assert not list(wire.glob("envelope*"))


def test_a_broken_contract_is_refused_and_the_old_package_stays(
    generator: ModuleType, contracts: Path, tmp_path: Path
):
    wire = tmp_path / "wire"
    generator.generate(contracts, wire)
    (contracts / "plimsoll" / "v1" / "echo.proto").write_text("message Ping { string node = ; }")
    with pytest.raises(generator.WireError, match="protoc refused the contracts"):
        generator.generate(contracts, wire)
    assert (wire / "echo_pb2.py").is_file()


def test_a_tree_without_contracts_says_so(generator: ModuleType, tmp_path: Path):
    with pytest.raises(generator.WireError, match=r"No \.proto file"):
        generator.generate(tmp_path, tmp_path / "wire")
