"""`plimsoll pki`: a local authority and the certificates that all processes need."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from console.telling import Refused, chosen, one_sentence, people, print_json
from runtime.authority import Credentials, Identity, Role
from runtime.clock import WallClock
from runtime.keyring import Keyring

HUB = Identity(Role.OPERATOR, "hub")


def run_init(folder: Path, gateways: list[str], nodes: list[str], days: float, output: str) -> int:
    """Make the authority and what an operator, its gateways, a fleet and a person need."""
    with one_sentence():
        chosen("output", output, ("table", "json"))
        wanted = [
            HUB,
            Identity(Role.ADMIN, "admin"),
            Identity(Role.CLIENT, "client"),
            Identity(Role.FLEET, "fleet"),
            *(Identity(Role.GATEWAY, name) for name in gateways),
            *(Identity(Role.NODE, name) for name in nodes),
        ]
        ring = Keyring(folder, WallClock(), leaf_days=days)
        ring.create()
        made = [ring.issue(identity) for identity in wanted]
        _show(ring, made, output)
        if output == "table":
            people().print(
                f"\nKeep {escape(str(folder / 'authority'))} where certificates are issued; give each process its own "
                f"folder.\nNext: [cyan]plimsoll operator --pki {escape(str(folder))}[/cyan]"
            )
    return 0


def run_issue(role: str, name: str, folder: Path, days: float, output: str) -> int:
    """Issue or renew one certificate."""
    with one_sentence():
        chosen("output", output, ("table", "json"))
        known = Role(chosen("role", role, [each.value for each in Role]))
        ring = Keyring(folder, WallClock(), leaf_days=days)
        _show(ring, [ring.issue(Identity(known, name))], output)
    return 0


def run_list(folder: Path, output: str) -> int:
    """Show the certificates of a folder and when they end."""
    with one_sentence():
        chosen("output", output, ("table", "json"))
        ring = Keyring(folder, WallClock())
        found = [Credentials.read(ring.place(identity)) for identity in ring.identities()]
        if not found:
            raise Refused(
                f"{folder} holds no certificates: make them with `plimsoll pki init --dir {folder}`."
            )
        _show(ring, found, output)
    return 0


def _show(ring: Keyring, certificates: list[Credentials], output: str) -> None:
    if output == "json":
        print_json(
            [
                {
                    "role": each.identity.role.value,
                    "name": each.identity.name,
                    "folder": str(ring.place(each.identity)),
                    "expires": _day(each.expires_seconds),
                }
                for each in certificates
            ]
        )
        return
    table = Table("role", "name", "valid until", "folder", box=None, padding=(0, 2), header_style="bold")
    for each in certificates:
        expired = each.expires_seconds <= WallClock().now()
        until = _day(each.expires_seconds)
        table.add_row(
            each.identity.role.value,
            each.identity.name,
            f"[red]{until} (expired)[/red]" if expired else until,
            escape(str(ring.place(each.identity))),
        )
    people().print(table)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
