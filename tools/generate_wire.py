"""Makes the package `wire/` from the contracts in `proto/`: ours in `plimsoll/v1/`, the kubelet's in `kubelet/v1/`.

protoc names modules after the folder of the contract (`plimsoll/v1/agent_pb2.py`); a package called
`plimsoll` would stand apart from the rooms, and one called `proto` would shadow proto-plus. So the modules are
laid flat into `wire/` and their imports of each other are rewritten: `from wire import agent_pb2`. Beside
protoc's own `.pyi` of the messages, a `.pyi` of each service is written, typed for `grpc.aio`.

Run as `python tools/generate_wire.py`; the build hook and the Makefile call it too.
"""

import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

CONTRACTS = ("plimsoll/v1", "kubelet/v1")
HEADER = '"""Generated from proto/ by tools/generate_wire.py. Not edited, not committed."""\n'
SIBLING_IMPORT = re.compile(r"^from (?:plimsoll|kubelet)\.v1 import ", re.MULTILINE)


class WireError(Exception):
    """The contracts could not be compiled; the text says which and what protoc answered."""


def generate(proto: Path, wire: Path) -> list[Path]:
    """Compiles every contract under `proto` into the flat package `wire`, replacing what is there.

    Files whose text did not change keep their time stamp, and modules of contracts that are gone are removed.

    Returns: the written modules, sorted. Raises: WireError when there is no contract or protoc refuses one.
    """
    contracts = sorted(path for folder in CONTRACTS for path in (proto / folder).glob("*.proto"))
    if not contracts:
        raise WireError(f"No .proto file in {proto / CONTRACTS[0]}: the source tree is incomplete.")
    with tempfile.TemporaryDirectory(prefix="plimsoll-wire-") as scratch:
        built = _compile(proto, contracts, Path(scratch))
    return _replace(wire, built)


def _compile(proto: Path, contracts: list[Path], scratch: Path) -> dict[str, str]:
    """Runs protoc once into `scratch` and returns the text of every file of the package, by name."""
    described = scratch / "contracts.binpb"
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={proto}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--python_out={scratch}",
            f"--pyi_out={scratch}",
            f"--grpc_python_out={scratch}",
            f"--descriptor_set_out={described}",
            *[str(contract) for contract in contracts],
        ]
    )
    if status != 0:
        raise WireError(f"protoc refused the contracts in {proto} (status {status}); see its lines above.")
    built = {"__init__.py": HEADER, "py.typed": ""}
    for source in sorted(path for folder in CONTRACTS for path in (scratch / folder).glob("*")):
        built[source.name] = SIBLING_IMPORT.sub("from wire import ", source.read_text())
    described_files = descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes()).file
    messages = {
        f".{file.package}.{name.name}": file for file in described_files for name in file.message_type
    }
    for file in described_files:
        built[f"{_stem(file)}_pb2_grpc.pyi"] = _service_types(file, messages)
    return built


def _stem(file: descriptor_pb2.FileDescriptorProto) -> str:
    return Path(file.name).stem


def _service_types(
    file: descriptor_pb2.FileDescriptorProto, messages: dict[str, descriptor_pb2.FileDescriptorProto]
) -> str:
    """Types of one contract's stubs, servicers and registration functions, for grpc.aio."""
    methods = [method for service in file.service for method in service.method]
    used = {_stem(messages[kind]) for method in methods for kind in (method.input_type, method.output_type)}
    lines = [HEADER.rstrip()]
    if methods:
        lines += [
            "from collections.abc import AsyncIterator, Awaitable",
            "",
            "import grpc",
            "import grpc.aio",
        ]
    lines += ["", *[f"from wire import {stem}_pb2" for stem in sorted(used)]]
    for service in file.service:
        lines += _stub_types(service, messages) + _servicer_types(service, messages)
    return "\n".join(lines) + "\n"


def _types_of(
    method: descriptor_pb2.MethodDescriptorProto, messages: dict[str, descriptor_pb2.FileDescriptorProto]
) -> tuple[str, str]:
    """Names of a method's request and response types as the generated file writes them."""
    kinds = (method.input_type, method.output_type)
    request, response = (f"{_stem(messages[kind])}_pb2.{kind.rsplit('.', 1)[1]}" for kind in kinds)
    return request, response


def _stub_types(
    service: descriptor_pb2.ServiceDescriptorProto, messages: dict[str, descriptor_pb2.FileDescriptorProto]
) -> list[str]:
    lines = ["", f"class {service.name}Stub:"]
    for method in service.method:
        request, response = _types_of(method, messages)
        sends = "Stream" if method.client_streaming else "Unary"
        answers = "Stream" if method.server_streaming else "Unary"
        lines.append(f"    {method.name}: grpc.aio.{sends}{answers}MultiCallable[{request}, {response}]")
    return [*lines, "    def __init__(self, channel: grpc.aio.Channel) -> None: ..."]


def _servicer_types(
    service: descriptor_pb2.ServiceDescriptorProto, messages: dict[str, descriptor_pb2.FileDescriptorProto]
) -> list[str]:
    """An answering stream may be an async generator, or a coroutine that writes to its context."""
    lines = ["", f"class {service.name}Servicer:"]
    for method in service.method:
        request, response = _types_of(method, messages)
        takes = (
            f"request_iterator: AsyncIterator[{request}]"
            if method.client_streaming
            else f"request: {request}"
        )
        gives = f"Awaitable[{response}]"
        if method.server_streaming:
            gives = f"AsyncIterator[{response}] | Awaitable[None]"
        lines += [
            f"    def {method.name}(",
            f"        self, {takes}, context: grpc.aio.ServicerContext[{request}, {response}]",
            f"    ) -> {gives}: ...",
        ]
    register = f"def add_{service.name}Servicer_to_server("
    return [
        *lines,
        "",
        register,
        f"    servicer: {service.name}Servicer, server: grpc.aio.Server",
        ") -> None: ...",
    ]


def _replace(wire: Path, built: dict[str, str]) -> list[Path]:
    """Makes the folder hold exactly `built`; unchanged files are not touched, so that nothing re-runs for them."""
    wire.mkdir(exist_ok=True)
    for old in wire.iterdir():
        if old.name == "__pycache__":
            shutil.rmtree(old)
        elif old.name not in built:
            old.unlink()
    for name, text in built.items():
        target = wire / name
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
    return sorted(wire / name for name in built)


def main() -> int:
    """Generates `wire/` of this source tree; prints what it holds, or one sentence of what failed."""
    root = Path(__file__).resolve().parent.parent
    try:
        written = generate(root / "proto", root / "wire")
    except WireError as error:
        print(f"generate_wire: {error}", file=sys.stderr)
        return 1
    print("wire/: " + ", ".join(path.name for path in written if path.name.endswith("_pb2.py")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
