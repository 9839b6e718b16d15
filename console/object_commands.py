"""The subcommands for a running operator's objects, for certificates, and for what can be chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.options import ADMIN, GATEWAY_PORT, HERE, PKI, Admin, Listing, OperatorAddress, Output, Pki

Namespace = Annotated[
    str, typer.Option("-n", "--namespace", help="Namespace; a name may carry it too, as NAMESPACE/NAME.")
]
KindWord = Annotated[
    str, typer.Argument(metavar="KIND", help="msvc, tjob, aclass, pdom, anode, pods, nodes, events…")
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
    """Set the size of a service: a floor in mode Auto, the exact size in Off."""
    from console.commands.objects import run_scale
    from console.reaching import Reach

    reach = Reach(operator=operator, pki=pki, admin=admin)
    _exit(run_scale(kind, name, replicas, namespace, output, reach))


Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        help="Kubeconfig of the cluster that holds the objects; otherwise they are asked of --operator."
    ),
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; otherwise its current one.")]
ServiceName = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a ModelService, or NAMESPACE/NAME.")
]

rollout_app = typer.Typer(
    help="Changes of what runs: how far they are, and what was before.", no_args_is_help=True
)


@rollout_app.command("status")
def rollout_status(  # noqa: PLR0913 - options are arguments here
    name: ServiceName,
    *,
    wait: Annotated[
        float,
        typer.Option(
            help="Seconds to wait for its end, in which it follows the object.", min=0.0, max=86_400.0
        ),
    ] = 0.0,
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    operator: OperatorAddress = HERE,
    pki: Pki = PKI,
    admin: Admin = ADMIN,
    output: Output = "table",
) -> None:
    """How far a change of model, image, arguments or pods of a service is; exit code 1 while it is not complete."""
    from console.commands.rollout import Asked, run_status
    from console.reaching import Reach

    reach = Reach(operator=operator, pki=pki, admin=admin)
    asked = Asked(name=name, namespace=namespace, reach=reach, kubeconfig=kubeconfig, context=context)
    _exit(run_status(asked, wait, output))


@rollout_app.command("history")
def rollout_history(
    name: ServiceName,
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    operator: OperatorAddress = HERE,
    pki: Pki = PKI,
    admin: Admin = ADMIN,
    output: Output = "table",
) -> None:
    """The revisions that are kept of a service, oldest first: what, since when, how it ended and how long it took."""
    from console.commands.rollout import Asked, run_history
    from console.reaching import Reach

    reach = Reach(operator=operator, pki=pki, admin=admin)
    asked = Asked(name=name, namespace=namespace, reach=reach, kubeconfig=kubeconfig, context=context)
    _exit(run_history(asked, output))


def rollback(  # noqa: PLR0913 - options are arguments here
    name: ServiceName,
    *,
    to_revision: Annotated[
        int, typer.Option(help="Number of a revision; 0 takes the newest complete one before.", min=0)
    ] = 0,
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    operator: OperatorAddress = HERE,
    pki: Pki = PKI,
    admin: Admin = ADMIN,
    output: Output = "table",
) -> None:
    """Make a service ask for an older revision again: its object is changed, with your rights, and rolled out.

    On Kubernetes name the cluster with --kubeconfig or --context; `kubectl rollout undo` knows no custom resources.
    """
    from console.commands.rollout import Asked, run_rollback
    from console.reaching import Reach

    reach = Reach(operator=operator, pki=pki, admin=admin)
    asked = Asked(name=name, namespace=namespace, reach=reach, kubeconfig=kubeconfig, context=context)
    _exit(run_rollback(asked, to_revision, output))


def policies(
    loop: Annotated[
        str,
        typer.Argument(
            metavar="[LOOP]",
            help="One question only: select, scale, commit, train, place, warm, power, dispatch, migration.",
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


def send(  # noqa: PLR0913 - options are arguments here
    service: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME", help="The ModelService to ask.")],
    *,
    gateway: Annotated[
        str, typer.Option(envvar="PLIMSOLL_GATEWAY", metavar="HOST:PORT", help="Where the gateway listens.")
    ] = f"127.0.0.1:{GATEWAY_PORT}",
    name: Annotated[str, typer.Option(help="Name of the gateway, as its certificate has it.")] = "gateway-0",
    count: Annotated[int, typer.Option("-c", "--count", help="Requests to send.", min=1, max=100_000)] = 10,
    rate: Annotated[float, typer.Option(help="Requests per second; 0 sends all at once.", min=0.0)] = 0.0,
    input_tokens: Annotated[int, typer.Option(help="Prompt length.", min=1, max=10_000_000)] = 1000,
    output_tokens: Annotated[int, typer.Option(help="Answer length.", min=1, max=10_000_000)] = 200,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the last answer.", min=0.1)] = 300.0,
    client: Annotated[
        str, typer.Option("--as", metavar="NAME", help="Client certificate in --pki to use.")
    ] = "client",
    pki: Pki = PKI,
    output: Output = "table",
) -> None:
    """Send requests through a gateway and show how they were served: first token, last token, refusals.

    The first request to a service at zero waits at the gateway until a replica has started.
    """
    from console.commands.send import Load, run_send

    load = Load(
        service=service,
        gateway=gateway,
        gateway_name=name,
        count=count,
        rate=rate,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        timeout_seconds=timeout,
        client=client,
        pki=pki,
    )
    _exit(run_send(load, output))


def _exit(code: int) -> None:
    if code:
        raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add these subcommands."""
    for command in (get, apply, delete, scale, rollback, send, policies):
        app.command(rich_help_panel="Objects")(command)
    app.add_typer(rollout_app, name="rollout", rich_help_panel="Objects")
    app.add_typer(pki_app, name="pki", rich_help_panel="Processes")
