"""The subcommands for a running operator's objects, for certificates, and for what can be chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.options import ADMIN, HERE, PKI, Admin, Listing, OperatorAddress, Output, Pki

Namespace = Annotated[
    str, typer.Option("-n", "--namespace", help="Namespace; a name may carry it too, as NAMESPACE/NAME.")
]
KindWord = Annotated[
    str, typer.Argument(metavar="KIND", help="e.g. msvc, tjob, aclass, pdom, anode, pods, nodes, events.")
]
Folder = Annotated[Path, typer.Option("--dir", envvar="PLIMSOLL_PKI", help="Folder of certificates.")]
Days = Annotated[float, typer.Option(help="How long the certificates are valid.", min=0.01, max=825.0)]


def get(  # noqa: PLR0913 - options are arguments here
    kind: KindWord,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="One object; all of the kind without it.")
    ] = "",
    *,
    namespace: Namespace = "",
    selector: Annotated[str, typer.Option("-l", "--selector", help="Labels, e.g. app=chat,tier!=gold.")] = "",
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Follow changes until interrupted.")] = False,
    operator: OperatorAddress = HERE,
    pki: Pki = PKI,
    admin: Admin = ADMIN,
    output: Listing = "table",
) -> None:
    """Show objects: what is wanted, what is, and why, in the columns that `kubectl get` would show.

    Examples: `plimsoll get msvc`, `plimsoll get msvc shop/chat -o yaml`, `plimsoll get pods -l app=chat -w`.
    """
    from console.commands.objects import Question, run_get
    from console.reaching import Reach

    question = Question(
        kind=kind, name=name, namespace=namespace, selector=selector, output=output, watch=watch
    )
    _exit(run_get(question, Reach(operator=operator, pki=pki, admin=admin)))


def apply(
    files: Annotated[
        list[Path],
        typer.Option("-f", "--filename", help="File, folder, or - for standard input; repeatable."),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Take fields over that another manager set to other values.")
    ] = False,
    operator: OperatorAddress = HERE,
    pki: Pki = PKI,
    admin: Admin = ADMIN,
    output: Output = "table",
) -> None:
    """Apply manifests: create what is missing, change what differs, leave the rest alone.

    They are checked first, all of them; each fault comes with file, line and what to write instead.
    """
    from console.commands.objects import run_apply
    from console.reaching import Reach

    _exit(run_apply(files, force, output, Reach(operator=operator, pki=pki, admin=admin)))


def delete(
    kind: KindWord,
    name: Annotated[str, typer.Argument(metavar="NAME", help="NAME or NAMESPACE/NAME.")],
    namespace: Namespace = "",
    operator: OperatorAddress = HERE,
    pki: Pki = PKI,
    admin: Admin = ADMIN,
    output: Output = "table",
) -> None:
    """Delete an object; what it owns goes with it, in order."""
    from console.commands.objects import run_delete
    from console.reaching import Reach

    _exit(run_delete(kind, name, namespace, output, Reach(operator=operator, pki=pki, admin=admin)))


def scale(
    kind: KindWord,
    name: Annotated[str, typer.Argument(metavar="NAME", help="NAME or NAMESPACE/NAME.")],
    replicas: Annotated[
        int, typer.Option(help="Wanted size in units of the reference variant.", min=0, max=10_000)
    ],
    namespace: Namespace = "",
    operator: OperatorAddress = HERE,
    pki: Pki = PKI,
    admin: Admin = ADMIN,
    output: Output = "table",
) -> None:
    """Set the size of a service: a floor in mode Auto, the exact size in Off and Recommend."""
    from console.commands.objects import run_scale
    from console.reaching import Reach

    reach = Reach(operator=operator, pki=pki, admin=admin)
    _exit(run_scale(kind, name, replicas, namespace, output, reach))


def policies(
    loop: Annotated[
        str,
        typer.Argument(
            metavar="[LOOP]",
            help="One question only: select, scale, commit, train, place, warm, power, dispatch.",
        ),
    ] = "",
    output: Output = "table",
) -> None:
    """List the policies that can be chosen, with every setting, its default and what it means."""
    from console.commands.policies import run_policies

    _exit(run_policies(loop, output))


pki_app = typer.Typer(
    help="Certificates: a local authority, and an identity for each process.", no_args_is_help=True
)


@pki_app.command()
def init(
    folder: Folder = PKI,
    gateway: Annotated[list[str] | None, typer.Option(help="Name of a gateway; repeatable.")] = None,
    node: Annotated[list[str] | None, typer.Option(help="Name of a node with an agent; repeatable.")] = None,
    days: Days = 30.0,
    output: Output = "table",
) -> None:
    """Make an authority, and certificates for operator, gateway, fleet, a client and yourself.

    Every file is readable by its owner alone. Where the authority's key is at hand, processes issue and renew what
    they lack; elsewhere, copy an identity's own folder and nothing else.
    """
    from console.commands.pki import run_init

    _exit(run_init(folder, gateway or ["gateway-0"], node or [], days, output))


@pki_app.command()
def issue(
    role: Annotated[
        str, typer.Argument(metavar="ROLE", help="node, gateway, operator, client, admin or fleet.")
    ],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name within the role: a node's name, for instance.")
    ],
    folder: Folder = PKI,
    days: Days = 30.0,
    output: Output = "table",
) -> None:
    """Issue or renew one certificate. Running processes take the new one for their next connection."""
    from console.commands.pki import run_issue

    _exit(run_issue(role, name, folder, days, output))


@pki_app.command("list")
def list_(folder: Folder = PKI, output: Output = "table") -> None:
    """Show the certificates of a folder, and until when they are valid."""
    from console.commands.pki import run_list

    _exit(run_list(folder, output))


def _exit(code: int) -> None:
    if code:
        raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add these subcommands."""
    for command in (get, apply, delete, scale, policies):
        app.command(rich_help_panel="Objects")(command)
    app.add_typer(pki_app, name="pki", rich_help_panel="Processes")
