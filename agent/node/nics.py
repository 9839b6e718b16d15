"""NICs of a node from sysfs: RDMA ports (InfiniBand or RoCE) with rate and GID types, and plain Ethernet.

Read from files alone, without privilege or tools. The root folder is a parameter, so a recorded tree reads like the
machine it came from.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import msgspec

GIGABIT = 1_000_000_000
MEGABIT = 1_000_000
SYSFS = Path("/sys")


class Link(StrEnum):
    """Link layer. RoCE is Ethernet whose RDMA port has RoCE addresses."""

    ETHERNET = "ethernet"
    ROCE = "roce"
    INFINIBAND = "infiniband"


class Nic(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One port. `subnet` is the InfiniBand subnet prefix, empty elsewhere: sysfs has no Ethernet netmask."""

    name: str
    link: Link
    rate_bits_per_second: int
    gid_types: tuple[str, ...] = ()
    numa: int = -1
    pci_address: str = ""
    subnet: str = ""
    up: bool = False
    interface: str = ""
    port: int = 0


def read_nics(root: Path = SYSFS) -> tuple[Nic, ...]:
    """All physical ports under `root`, by name and port number.

    An interface that belongs to an RDMA port is part of it and not listed again; virtual interfaces (no device
    behind them) are left out; what cannot be read is left at its default, for a NIC may vanish while it is read.
    """
    rdma = [nic for device in _folders(root / "class/infiniband") for nic in _rdma_ports(device)]
    taken = {name for device in _folders(root / "class/infiniband") for name in _interfaces(device)}
    plain = [
        _ethernet(folder)
        for folder in _folders(root / "class/net")
        if folder.name not in taken and (folder / "device").exists() and _text(folder / "type") in {"1", ""}
    ]
    return tuple(sorted([*rdma, *plain], key=lambda nic: (nic.name, nic.port)))


def parse_rate(text: str) -> int:
    """Bits per second of a port's `rate` file, e.g. "400 Gb/sec (4X NDR)"; 0 when it says nothing usable."""
    found = re.match(r"\s*(\d+(?:\.\d+)?)\s*([GM])b/sec", text)
    if found is None:
        return 0
    return round(float(found[1]) * (GIGABIT if found[2] == "G" else MEGABIT))


def _rdma_ports(device: Path) -> list[Nic]:
    interfaces = _interfaces(device)
    return [
        _rdma_port(device, port, interfaces)
        for port in _folders(device / "ports")
        if port.name.isdigit() and _text(port / "link_layer") in {"InfiniBand", "Ethernet"}
    ]


def _rdma_port(device: Path, port: Path, interfaces: list[str]) -> Nic:
    gid_types = tuple(sorted({kind for entry in _files(port / "gid_attrs/types") if (kind := _text(entry))}))
    infiniband = _text(port / "link_layer") == "InfiniBand"
    roce = not infiniband and any("RoCE" in kind for kind in gid_types)
    return Nic(
        name=device.name,
        link=Link.INFINIBAND if infiniband else Link.ROCE if roce else Link.ETHERNET,
        rate_bits_per_second=parse_rate(_text(port / "rate")),
        gid_types=gid_types,
        numa=_number(device / "device/numa_node", -1),
        pci_address=_pci_address(device),
        subnet=_subnet_prefix(port) if infiniband else "",
        up=_text(port / "state").startswith("4"),  # "4: ACTIVE"
        interface=_interface_of(device, port.name, interfaces),
        port=int(port.name),
    )


def _interface_of(device: Path, port: str, interfaces: list[str]) -> str:
    """The network interface of a port: by its port number where a device has several, else the only one."""
    for name in interfaces:
        numbers = {_number(device / "device/net" / name / file, -1) for file in ("dev_port", "dev_id")}
        if len(interfaces) > 1 and int(port) - 1 in numbers:
            return name
    return interfaces[0] if len(interfaces) == 1 else ""


def _subnet_prefix(port: Path) -> str:
    """First half of GID 0, e.g. "fe80:0000:0000:0000"; empty while the port has none."""
    parts = _text(port / "gids/0").split(":")
    prefix = ":".join(parts[:4])
    return prefix if len(parts) == 8 and prefix.strip("0:") else ""


def _ethernet(folder: Path) -> Nic:
    megabits = _number(folder / "speed", 0)
    return Nic(
        name=folder.name,
        link=Link.ETHERNET,
        rate_bits_per_second=max(0, megabits) * MEGABIT,  # a link that is down says -1
        numa=_number(folder / "device/numa_node", -1),
        pci_address=_pci_address(folder),
        up=_text(folder / "operstate") == "up",
        interface=folder.name,
    )


def _pci_address(folder: Path) -> str:
    """Name of the PCI device behind a class folder, "0000:1a:00.0"; empty for another bus."""
    try:
        name = (folder / "device").resolve().name
    except OSError:
        return ""
    return name if re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", name) else ""


def _interfaces(device: Path) -> list[str]:
    return [folder.name for folder in _folders(device / "device/net")]


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []


def _files(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_file())
    except OSError:
        return []


def _text(path: Path) -> str:
    """Content of a small file, stripped; empty where it cannot be read (unset GID entries answer EINVAL)."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path, default: int) -> int:
    text = _text(path)
    try:
        return int(text, 0)
    except ValueError:
        return default
