"""`python -m console.controlplane`: what `make control-plane` and `make cluster` run."""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import typer

from console.options import HERE, PKI, LogJson, LogLevel, OperatorAddress, Output, Pki, Seed
from console.telling import one_sentence

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


@app.command()
def build() -> None:
    """Build the control plane unless it is there, or is given by KUBEBUILDER_ASSETS or PATH; then say where it is."""
    from console.controlplane import binaries, building

    with one_sentence():
        given = binaries.given(os.environ)
        if given is None:
            building.ensure(binaries.KUBE)
        found = given or binaries.find()
        building.tell(f"control plane: {found.path('kube-apiserver').parent} ({found.origin})")


@app.command()
def helm() -> None:
    """Build helm unless it is there; print its path."""
    from console.controlplane import binaries, building

    with one_sentence():
        paths = building.ensure(binaries.HELM, lambda line: typer.echo(f"-- {line}", err=True))
        typer.echo(str(paths["helm"]))


@app.command()
def up(  # noqa: PLR0913 - options are arguments here
    *,
    nodes: Annotated[
        str, typer.Option(metavar="demo|N", help="`demo` for its 24 mixed machines, or how many alike.")
    ] = "demo",
    gpu: Annotated[str, typer.Option(help="Product of machines alike.")] = "H100",
    gpus: Annotated[int, typer.Option(help="GPUs of each of machines alike.", min=1, max=64)] = 8,
    operator: OperatorAddress = HERE,
    pki: Pki = PKI,
    enrol: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the operator gives certificates for tokens: the agents then get pods and ask there.",
        ),
    ] = "",
    seed: Seed = 1,
    start_seconds: Annotated[
        float, typer.Option(help="How long a replica takes to start; 0: as long as real ones.", min=0.0)
    ] = 0.0,
    output: Output = "table",
    log_level: LogLevel = "warning",
    log_json: LogJson = False,
) -> None:
    """Run a control plane with our kinds and a simulated fleet until Ctrl-C. `--nodes 0`: without a fleet.

    Where --pki holds an authority, the nodes have agents too, which dial --operator until it is there.
    """
    from console.controlplane.up import UpOptions, run_up
    from console.process import Talk

    options = UpOptions(
        operator=operator,
        pki=pki,
        enrol=enrol,
        nodes=nodes,
        gpu=gpu,
        gpus=gpus,
        seed=seed,
        start_seconds=start_seconds,
    )
    raise typer.Exit(run_up(options, Talk(output=output, log_level=log_level, log_json=log_json)))


@app.command()
def environment() -> None:
    """Print the line that puts kubectl and the other binaries on PATH."""
    from console.controlplane import binaries

    with one_sentence():
        typer.echo(f"export PATH={shlex.quote(str(binaries.find().path('kubectl').parent))}:$PATH")


if __name__ == "__main__":
    app()
