"""The subcommands for performance profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="profile", no_args_is_help=True, help="Measured performance profiles: read, check, hand over."
)


def _edges(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: list token counts like 25,100,250", param_hint=option) from error


@app.callback()
def profile() -> None:
    """Measured performance profiles: read, check, hand over."""


@app.command("import")
def import_profile(  # noqa: PLR0913 - options are arguments here
    file: Annotated[
        Path, typer.Argument(help="Profile of Mélange, AIBrix or aiconfigurator, a grid by GPU, or our own.")
    ],
    *,
    model: Annotated[
        str, typer.Option(help="Model of the services it is for, as their manifests name it.")
    ] = "",
    gpu: Annotated[
        str, typer.Option(help="GPU product, where the file has a name of its own for it (AIBrix).")
    ] = "",
    gpus: Annotated[int, typer.Option(help="GPUs of one replica.", min=0, max=1024)] = 0,
    precision: Annotated[str, typer.Option(help="Precision it holds for; any unless given.")] = "",
    engine: Annotated[str, typer.Option(help="Engine it holds for; any unless given.")] = "",
    tpot_ms: Annotated[
        float, typer.Option(help="Time per output token it was measured under.", min=0.0)
    ] = 0.0,
    ttft_ms: Annotated[
        float, typer.Option(help="Time to the first token it was measured under.", min=0.0)
    ] = 0.0,
    input_edges: Annotated[
        str, typer.Option(help="Input sizes of the rows, where the file does not say: 25,100,250.")
    ] = "",
    output_edges: Annotated[str, typer.Option(help="Output sizes of the columns, likewise.")] = "",
    error: Annotated[
        float, typer.Option(help="Half-width of its error band, as a share.", min=0.0, max=0.99)
    ] = 0.1,
    out: Annotated[Path | None, typer.Option(help="File to write; standard output unless given.")] = None,
    config_map: Annotated[
        str,
        typer.Option(
            metavar="NAME[@NAMESPACE]", help="Write a ConfigMap of this name to mount in the operator."
        ),
    ] = "",
) -> None:
    """Read a measured profile, check it, and write it as the operator takes it.

    Examples: `plimsoll profile import melange.json --model llama-2-7b --tpot-ms 120 --out profiles/melange.json`,
    `plimsoll profile import a100.json --model llama-2-7b --gpu A100 --config-map measured | kubectl apply -f -`.
    """
    from console.commands.profile import run_import
    from placement.profiles.formats import Given

    given = Given(
        model=model,
        accelerator=gpu,
        gpus=gpus,
        precision=precision,
        engine=engine,
        tpot_seconds=tpot_ms / 1e3,
        ttft_seconds=ttft_ms / 1e3,
        input_edges=_edges(input_edges, "--input-edges"),
        output_edges=_edges(output_edges, "--output-edges"),
        error=error,
    )
    code = run_import(file, given, out, config_map)
    if code:
        raise typer.Exit(code)
