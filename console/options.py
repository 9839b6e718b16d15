"""Options that several subcommands share, with one name, one meaning and one environment variable each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

VERSION = "0.1.0"
OPERATOR_PORT = 7443
GATEWAY_PORT = 7444
HEALTH_PORT = 7480

Output = Annotated[str, typer.Option("-o", "--output", help="`table` for people, `json` for programs.")]
Listing = Annotated[
    str, typer.Option("-o", "--output", help="`table` or `wide` for people, `json` or `yaml` for programs.")
]
Pki = Annotated[
    Path,
    typer.Option("--pki", envvar="PLIMSOLL_PKI", help="Folder of certificates, made by `plimsoll pki init`."),
]
OperatorAddress = Annotated[
    str,
    typer.Option(
        "--operator", envvar="PLIMSOLL_OPERATOR", metavar="HOST:PORT", help="Where the operator listens."
    ),
]
LedgerUrl = Annotated[
    str,
    typer.Option(
        "--ledger",
        envvar="PLIMSOLL_LEDGER",
        metavar="URL",
        help="Ledger: the path of a SQLite file, or postgresql://USER@HOST/DATABASE; the password too may come from PGPASSWORD or PGPASSFILE.",
    ),
]
Admin = Annotated[
    str, typer.Option("--as", metavar="NAME", help="Name of the admin certificate in --pki to use.")
]
LogLevel = Annotated[
    str, typer.Option("--log-level", envvar="PLIMSOLL_LOG_LEVEL", help="debug, info, warning or error.")
]
LogJson = Annotated[bool, typer.Option("--log-json", help="Log lines as JSON, for collectors.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random; logged.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]

PKI = Path("pki")
LEDGER = "out/ledger.db"
HERE = f"127.0.0.1:{OPERATOR_PORT}"
ADMIN = "admin"
LOG = "info"
TOKEN_FILE = Path("/var/run/plimsoll/enrolment/token")
CA_FILE = Path("/var/run/plimsoll/roots/roots.pem")
"""Where the chart's agent pods have the projected token and the ConfigMap with the roots."""
