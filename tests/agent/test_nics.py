"""NICs read from trees as sysfs has them on machines with InfiniBand, RoCE, cloud and plain Ethernet."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.node.nics import Link, Nic, parse_rate, read_nics


class Tree:
    """Writes the files that the kernel shows."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    def pci(self, address: str, numa: int) -> Path:
        folder = self.root / "devices/pci0000:00" / address
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "numa_node").write_text(f"{numa}\n")
        return folder

    def link(self, path: str, target: Path) -> None:
        at = self.root / path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.symlink_to(target)

    def rdma(
        self, name: str, address: str, layer: str, rate: str, *, gids: dict[int, tuple[str, str]],
        numa: int = 0, state: str = "4: ACTIVE", ports: int = 1, net: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        device = self.pci(address, numa)
        self.link(f"class/infiniband/{name}/device", device)
        for port in range(1, ports + 1):
            at = f"class/infiniband/{name}/ports/{port}"
            self.write(f"{at}/link_layer", layer)
            self.write(f"{at}/rate", rate)
            self.write(f"{at}/state", state)
            for number, (gid, kind) in gids.items():
                self.write(f"{at}/gids/{number}", gid)
                self.write(f"{at}/gid_attrs/types/{number}", kind)
        for place, interface in enumerate(net):
            self.write(f"devices/pci0000:00/{address}/net/{interface}/dev_port", str(place))
            self.ethernet(interface, device, speed="100000", make_device=False)

    def ethernet(
        self, name: str, device: Path | None, *, speed: str, state: str = "up", kind: str = "1",
        make_device: bool = True,
    ) -> None:  # fmt: skip
        at = f"class/net/{name}"
        self.write(f"{at}/speed", speed)
        self.write(f"{at}/operstate", state)
        self.write(f"{at}/type", kind)
        if device is not None:
            self.link(f"{at}/device", device)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


IB_GID = "fe80:0000:0000:0000:b83f:d203:00c1:5e2a"
ROCE_GIDS = {
    0: ("fe80:0000:0000:0000:ba3f:d2ff:fec1:5e2a", "IB/RoCE v1"),
    1: ("fe80:0000:0000:0000:ba3f:d2ff:fec1:5e2a", "RoCE v2"),
    3: ("0000:0000:0000:0000:0000:ffff:0a00:0105", "RoCE v2"),
}


def test_an_infiniband_server(tree: Tree) -> None:
    for place in range(2):
        tree.rdma(
            f"mlx5_{place}", f"0000:1{place}:00.0", "InfiniBand", "400 Gb/sec (4X NDR)",
            gids={0: (IB_GID, "IB/RoCE v1")}, numa=place,
        )  # fmt: skip
    tree.ethernet("eno1", tree.pci("0000:00:1f.6", 0), speed="10000")
    tree.ethernet("lo", None, speed="", kind="772")
    tree.ethernet("docker0", None, speed="10000")
    first, second, plain = sorted(read_nics(tree.root), key=lambda nic: nic.link != Link.INFINIBAND)
    assert first == Nic(
        name="mlx5_0", link=Link.INFINIBAND, rate_bits_per_second=400_000_000_000, gid_types=("IB/RoCE v1",),
        numa=0, pci_address="0000:10:00.0", subnet="fe80:0000:0000:0000", up=True, port=1,
    )  # fmt: skip
    assert (second.name, second.numa) == ("mlx5_1", 1)
    assert (plain.name, plain.link, plain.rate_bits_per_second) == ("eno1", Link.ETHERNET, 10_000_000_000)
    assert plain.pci_address == "0000:00:1f.6"


def test_a_roce_port_takes_its_interface_with_it(tree: Tree) -> None:
    tree.rdma(
        "mlx5_bond_0", "0000:3b:00.0", "Ethernet", "200 Gb/sec (4X HDR)", gids=ROCE_GIDS, net=("ens1f0np0",)
    )
    [nic] = read_nics(tree.root)
    assert (nic.link, nic.rate_bits_per_second) == (Link.ROCE, 200_000_000_000)
    assert nic.gid_types == ("IB/RoCE v1", "RoCE v2")
    assert nic.interface == "ens1f0np0"
    assert nic.subnet == ""


def test_a_two_port_card_gives_each_port_its_interface(tree: Tree) -> None:
    tree.rdma(
        "mlx5_0", "0000:3b:00.0", "Ethernet", "100 Gb/sec (4X EDR)", gids=ROCE_GIDS, ports=2, net=("p0", "p1")
    )
    assert [(nic.port, nic.interface) for nic in read_nics(tree.root)] == [(1, "p0"), (2, "p1")]


@pytest.mark.parametrize(
    ("layer", "gids", "expected"),
    [
        pytest.param("Ethernet", {}, [Link.ETHERNET], id="rdma over ethernet without a RoCE address (iWARP)"),
        pytest.param("Unspecified", {}, [], id="EFA says no layer: not a NIC of these kinds"),
        pytest.param("InfiniBand", {}, [Link.INFINIBAND], id="infiniband before the subnet manager came"),
    ],
)
def test_layers(tree: Tree, layer: str, gids: dict[int, tuple[str, str]], expected: list[Link]) -> None:
    tree.rdma("dev0", "0000:3b:00.0", layer, "100 Gb/sec (4X EDR)", gids=gids)
    assert [nic.link for nic in read_nics(tree.root)] == expected


@pytest.mark.parametrize(
    ("speed", "state", "bits", "up"),
    [
        pytest.param("25000", "up", 25_000_000_000, True, id="up"),
        pytest.param("-1", "down", 0, False, id="a link that is down says -1"),
        pytest.param("", "up", 0, True, id="a virtual function that says nothing"),
        pytest.param("unknown!", "up", 0, True, id="nonsense"),
    ],
)
def test_ethernet_speed(tree: Tree, speed: str, state: str, bits: int, up: bool) -> None:
    tree.ethernet("eth0", tree.pci("0000:00:05.0", -1), speed=speed, state=state)
    [nic] = read_nics(tree.root)
    assert (nic.rate_bits_per_second, nic.up, nic.numa) == (bits, up, -1)


def test_an_interface_on_a_bus_that_is_not_pci(tree: Tree) -> None:
    virtio = tree.root / "devices/vmbus/deadbeef-0001"
    virtio.mkdir(parents=True)
    tree.ethernet("eth0", virtio, speed="50000")
    [nic] = read_nics(tree.root)
    assert (nic.pci_address, nic.numa) == ("", -1)


def test_no_sysfs_at_all(tmp_path: Path) -> None:
    assert read_nics(tmp_path / "nothing") == ()


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        pytest.param("400 Gb/sec (4X NDR)", 400_000_000_000, id="ndr"),
        pytest.param("2.5 Gb/sec (1X SDR)", 2_500_000_000, id="fraction"),
        pytest.param("1000 Mb/sec", 1_000_000_000, id="mega"),
        pytest.param("", 0, id="empty"),
        pytest.param("fast", 0, id="word"),
        pytest.param("-400 Gb/sec", 0, id="negative"),
    ],
)
def test_rates(text: str, bits: int) -> None:
    assert parse_rate(text) == bits


def test_this_machine_reads_without_error() -> None:
    for nic in read_nics():
        assert nic.rate_bits_per_second >= 0
        assert nic.name
