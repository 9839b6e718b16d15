"""The subcommands that start a process: operator, agent, gateway, fleet. Each imports what it runs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.options import (
    CA_FILE,
    GATEWAY_PORT,
    HEALTH_PORT,
    HERE,
    LEDGER,
    LOG,
    OPERATOR_PORT,
    PKI,
    TOKEN_FILE,
    Host,
    LedgerUrl,
    LogJson,
    LogLevel,
    OperatorAddress,
    Output,
    Pki,
    Seed,
)


def operator(  # noqa: PLR0913 - options are arguments here
    *,
    pki: Pki = PKI,
    ledger: LedgerUrl = LEDGER,
    host: Host = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port of hub, routes and store; 0 takes a free one.")
    ] = OPERATOR_PORT,
    manifests: Annotated[
        list[Path] | None,
        typer.Option(
            "--manifests", "-f", help="File or folder of manifests to apply at the start; repeatable."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML with the operator's settings, such as `plan_seconds: 5`.")
    ] = None,
    health_host: Annotated[
        str, typer.Option(help="Address of /metrics, /healthz and /readyz.")
    ] = "127.0.0.1",
    health_port: Annotated[
        int, typer.Option(help="Port of /metrics, /healthz and /readyz; 0 takes a free one, -1 serves none.")
    ] = HEALTH_PORT,
    seed: Annotated[
        int | None, typer.Option(help="Seed of tie ranks and policies; overrides --config.")
    ] = None,
    ca_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the root (authority.key, authority.pem, trusted.pem) that signs the agents' certificates "
            "and the operator's own; in a cluster a Secret mounted as files."
        ),
    ] = None,
    enrol_listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where agents get their certificates for their projected tokens; nowhere unless given.",
        ),
    ] = "",
    agent_account: Annotated[
        str, typer.Option(metavar="NAMESPACE/NAME", help="Service account of the agents' pods.")
    ] = "plimsoll-agents/plimsoll-agent",
    agent_certificate_hours: Annotated[
        float,
        typer.Option(help="Life of an agent's certificate; it is renewed at two thirds.", min=0.1, max=720),
    ] = 24.0,
    store: Annotated[
        str,
        typer.Option(help="Where the objects live: `embedded` in this process, `kube` on an API server."),
    ] = "embedded",
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="How the API server is reached that holds the objects or reviews tokens; otherwise the pod's account, "
            "or $KUBECONFIG."
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Context of the kubeconfig; otherwise its current one.")
    ] = None,
    output: Output = "table",
    log_level: LogLevel = LOG,
    log_json: LogJson = False,
) -> None:
    """The operator: observes, decides, acts and explains, until it is told to stop.

    With the embedded store it keeps the objects itself (they live as long as the process) and serves agents,
    gateways, fleets and your commands on one port, over mutual TLS 1.3. With --store kube several may run: one holds
    the Lease and serves, the others stand by with warm caches. SIGTERM ends it in order: the ledger is written and
    the Lease given back, so that a successor begins at once.

    Try it, in four terminals:

        plimsoll pki init
        plimsoll operator -f examples/minimal
        plimsoll fleet --nodes 6 --gpu l4 --gpus 4
        plimsoll get msvc --watch
    """
    from console.commands.operator import OperatorOptions, run_operator
    from console.enrolling import EnrolOptions
    from console.process import Talk

    enrol = EnrolOptions(
        listen=enrol_listen,
        account=agent_account,
        kubeconfig=kubeconfig,
        context=context,
        certificate_hours=agent_certificate_hours,
    )
    options = OperatorOptions(
        pki=pki,
        ledger=ledger,
        host=host,
        port=port,
        manifests=tuple(manifests or ()),
        config=config,
        health_host=health_host,
        health_port=health_port,
        seed=seed,
        ca_dir=ca_dir,
        enrol=enrol if enrol_listen else None,
        store=store,
        kubeconfig=kubeconfig,
        context=context,
    )
    _exit(run_operator(options, Talk(output=output, log_level=log_level, log_json=log_json)))


def agent(  # noqa: PLR0913 - options are arguments here
    *,
    node: Annotated[str, typer.Option(help="Name of this node, as Kubernetes and its certificate have it.")],
    hub: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the operator's hub listens.")] = HERE,
    pki: Pki = PKI,
    enrol: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the operator gives certificates for tokens; with it --pki is not used.",
        ),
    ] = "",
    token_file: Annotated[
        Path, typer.Option(help="The pod's projected service account token; read anew at each use.")
    ] = TOKEN_FILE,
    ca_file: Annotated[
        Path, typer.Option(help="Roots (PEM) that the operator's certificate is checked by.")
    ] = CA_FILE,
    identity_dir: Annotated[
        Path | None,
        typer.Option(help="Keep key and certificate here (mode 0600) over restarts; in memory unless given."),
    ] = None,
    kubelet_socket: Annotated[
        Path | None,
        typer.Option(
            help="The kubelet's pod-resources socket (/var/lib/kubelet/pod-resources/kubelet.sock), to tell which pod "
            "has which GPU."
        ),
    ] = None,
    driver: Annotated[
        str, typer.Option(help="`nvml` for real NVIDIA GPUs, `simulated` for modelled ones.")
    ] = "nvml",
    manage_power: Annotated[
        bool, typer.Option("--manage-power", help="Let leases set power limits (nvml; needs the privilege).")
    ] = False,
    base_watts: Annotated[int, typer.Option(help="Draw of the node without its GPUs (nvml).", min=0)] = 0,
    gpu: Annotated[str, typer.Option(help="Product of the simulated machine.")] = "L4",
    gpus: Annotated[int, typer.Option(help="GPUs of the simulated machine.", min=1, max=64)] = 1,
    seed: Seed = 0,
    output: Output = "table",
    log_level: LogLevel = LOG,
    log_json: LogJson = False,
) -> None:
    """The daemon of one GPU node: inventory, telemetry each second, power caps by lease.

    It dials the hub and comes back by itself when the connection breaks. A cap above the safe one is a lease of
    seconds: when the operator, the network or this process dies, the node falls back to its safe cap. Without
    --manage-power it only reads.
    """
    from console.commands.agent import AgentOptions, run_agent
    from console.process import Talk

    options = AgentOptions(
        node=node,
        hub=hub,
        pki=pki,
        enrol=enrol,
        token_file=token_file,
        ca_file=ca_file,
        identity_dir=identity_dir,
        kubelet_socket=kubelet_socket,
        driver=driver,
        manage_power=manage_power,
        base_watts=base_watts,
        gpu=gpu,
        gpus=gpus,
        seed=seed,
    )
    _exit(run_agent(options, Talk(output=output, log_level=log_level, log_json=log_json)))


def gateway(
    *,
    name: Annotated[str, typer.Option(help="Name of this gateway, as its certificate has it.")] = "gateway-0",
    operator: OperatorAddress = HERE,
    pki: Pki = PKI,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port for clients; 0 takes a free one.")] = GATEWAY_PORT,
    output: Output = "table",
    log_level: LogLevel = LOG,
    log_json: LogJson = False,
) -> None:
    """The request plane: takes requests, holds those of a service at zero, dispatches, reports load.

    Routes come from the operator and stay in force while it is away. A request whose instance dies is sent to
    another one.
    """
    from console.commands.gateway import GatewayOptions, run_gateway
    from console.process import Talk

    options = GatewayOptions(name=name, operator=operator, pki=pki, host=host, port=port)
    _exit(run_gateway(options, Talk(output=output, log_level=log_level, log_json=log_json)))


def fleet(  # noqa: PLR0913 - options are arguments here
    *,
    operator: OperatorAddress = HERE,
    pki: Pki = PKI,
    nodes: Annotated[
        str, typer.Option(metavar="demo|N", help="`demo` for its 24 mixed machines, or how many alike.")
    ] = "demo",
    gpu: Annotated[
        str, typer.Option(help="Product of machines alike: L4, A10G, A100-80, L40S, H100, H200.")
    ] = "H100",
    gpus: Annotated[int, typer.Option(help="GPUs of each of machines alike.", min=1, max=64)] = 8,
    seed: Seed = 1,
    start_seconds: Annotated[
        float,
        typer.Option(
            help="How long a replica takes to start; 0: as long as real ones, about a minute.", min=0.0
        ),
    ] = 0.0,
    name: Annotated[str, typer.Option(help="Name of the fleet certificate in --pki.")] = "fleet",
    output: Output = "table",
    log_level: LogLevel = LOG,
    log_json: LogJson = False,
) -> None:
    """A simulated cluster on a running operator: agents over real gRPC, kubelets, a scheduler, engines' physics.

    Everything above the hardware is the production code; what the GPUs, networks and engines do is modelled. The
    nodes' certificates are issued in memory, so --pki must hold the authority.
    """
    from console.commands.fleet import FleetOptions, run_fleet
    from console.process import Talk

    options = FleetOptions(
        operator=operator,
        pki=pki,
        nodes=nodes,
        gpu=gpu,
        gpus=gpus,
        seed=seed,
        start_seconds=start_seconds,
        name=name,
    )
    _exit(run_fleet(options, Talk(output=output, log_level=log_level, log_json=log_json)))


def _exit(code: int) -> None:
    if code:
        raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add these subcommands."""
    for command in (operator, agent, gateway, fleet):
        app.command(rich_help_panel="Processes")(command)
