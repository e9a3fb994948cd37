"""`hymate-client`: the hospital's command: run the site, check it, make its key, begin its file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from hymate.command import run_command

EXIT_ENDED = 1

client_app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    no_args_is_help=True,
)

SiteFile = Annotated[
    Path | None, typer.Option("--config", metavar="SITE", help="Site file; 'hymate-client init' begins one.")
]


@client_app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    config: SiteFile = None,
    give_up_after: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            min=0.0,
            help="End with exit code 1 after so long without a connection.  [default: try for ever]",
        ),
    ] = None,
) -> None:
    """Run a hospital's site: answer the coordinator from the hospital's own data, under its own policy.

    **From nothing to a running site**

        hymate-client init north

        hymate-client keygen --out north --name north

        (fill in north/site.yaml, send north/north.pub to the coordinator)

        hymate-client check --config north/site.yaml

        hymate-client --config north/site.yaml

    The last one stays in the foreground and says in plain lines what it waits for and what it does. It
    calls the coordinator and nobody else, and reconnects for ever; nobody needs to reach the hospital.
    What it was asked and answered stands in `state/journal.jsonl`, Flower's own words in
    `state/supernode.log`.

    SIGTERM and Ctrl-C stop it cleanly. Exit code 0: stopped. 1: gave up (--give-up-after), and the last
    line says why. 2: something given cannot be used, and the line says what to change.
    """
    if context.invoked_subcommand is not None:
        return
    if config is None:
        raise typer.BadParameter("missing; give the site file", param_hint="--config")
    from client.service import NotConnected, serve
    from client.site import load_site

    try:
        serve(
            config,
            load_site(config),
            lambda text: print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}", flush=True),
            None if give_up_after is None else give_up_after * 60,
        )
    except NotConnected as failure:
        print(f"hymate-client: gave up: {failure}", file=sys.stderr)
        raise typer.Exit(EXIT_ENDED) from None


@client_app.command()
def check(
    config: SiteFile = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object (ok, lines), nothing else.")
    ] = False,
) -> None:
    """Check everything the site needs before a study: each line is ok, warn or fail, with the remedy.

    Example:

        hymate-client check --config north/site.yaml

    Checked are the site file, the data set (as `hymate data check` does), the labels of the allowed tasks,
    vocabulary coverage where a vocabulary is agreed, disk, memory, threads, the scan backend, the time of
    one training step on the site's own stays, key and certificates, the coordinator (reachable, TLS,
    clock, health, whether it knows the key), the privacy ledger and what is left of its budget, and what the
    policy allows, in words.

    Nothing is sent to the coordinator but the question whether it knows the site's key.

    Exit code 0: no line fails (there may be warnings). 1: a line fails. 2: could not be checked.
    """
    if config is None:
        raise typer.BadParameter("missing; give the site file", param_hint="--config")
    import json

    from client.preflight.lines import Status
    from client.preflight.run import preflight

    lines = []
    for line in preflight(config):
        lines.append(line)
        if not as_json:
            print(line, flush=True)
    failed = [line for line in lines if line.status is Status.FAIL]
    if as_json:
        print(json.dumps({"ok": not failed, "lines": [line.as_json() for line in lines]}, ensure_ascii=False))
    if failed:
        raise typer.Exit(EXIT_ENDED)


@client_app.command()
def ledger(
    config: SiteFile = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object (spent, left, parts, ...), nothing else.")
    ] = False,
) -> None:
    """Tell what rounds with noise have cost the site's patients so far, and what is left of the budget.

    Example:

        hymate-client ledger --config north/site.yaml

    By study and phase: rounds, steps, noise, sampling rate, and epsilon at the delta of `policy.privacy`. The
    ledger is `state/ledger.sqlite`; it never leaves the site. docs/privacy.md says what it protects.

    Exit code 2: the ledger cannot be read, or is not as it was written; then nothing private is trained.
    """
    if config is None:
        raise typer.BadParameter("missing; give the site file", param_hint="--config")
    import json

    from client.ledger_report import in_words, summary_of
    from client.site import load_site

    summary = summary_of(load_site(config))
    if as_json:
        print(json.dumps(summary.as_json(), ensure_ascii=False))
    else:
        print("\n".join(in_words(summary)))


@client_app.command()
def keygen(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for NAME.key and NAME.pub.")],
    name: Annotated[str, typer.Option(metavar="SITE", help="The site's name, as the study names it.")],
) -> None:
    """Make the key by which the coordinator knows the site.

    Example:

        hymate-client keygen --out north --name north

    writes north/north.key (private: stays here, readable by its owner alone) and north/north.pub (public:
    send it to the coordinator, and read the fingerprint to them over another channel). An existing key is
    never overwritten.
    """
    import re

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name):
        raise typer.BadParameter("letters, digits, - and _ only", param_hint="--name")
    _make_key(out, name)


def _make_key(folder: Path, name: str) -> None:
    from client.keygen import make_key

    made = make_key(folder, name)
    print(f"private key  {made.private}  (stays here: `key` of the site file)")
    print(f"public key   {made.public}  (send it to the coordinator)")
    print(f"fingerprint  {made.fingerprint}")


@client_app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for site.yaml; made if missing.")],
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The site's MEDS data set.")] = None,
    coordinator: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Whom the site calls.")] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="ca.crt, as the coordinator sent it.")
    ] = None,
    health: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the running client answers health checks.  [default: 127.0.0.1:9094]",
        ),
    ] = None,
    with_key: Annotated[bool, typer.Option("--keygen", help="Make the site's key, too.")] = False,
) -> None:
    """Begin a site: a commented site file that passes `check` once what it marks is filled in.

    Examples:

        hymate-client init north

        hymate-client init north --data /data/meds --coordinator c.example.org:9092 --ca ca.crt --keygen

    Options fill the file in; what they leave open is marked FILL IN. The site's name is the folder's.
    """
    from client.site import load_site
    from client.starter import write_site_file

    given = {
        "data": data and str(data.resolve()),
        "address": coordinator,
        "ca": ca and str(ca.resolve()),
        "health_address": health,
    }
    path = write_site_file(folder, {key: value for key, value in given.items() if value})
    print(f"site file    {path}")
    if with_key:
        _make_key(folder, load_site(path).name)
    if "FILL IN" in path.read_text(encoding="utf-8"):
        print(f"Fill in what {path} marks FILL IN.")
    print(f"Then: hymate-client check --config {path}")


def main() -> int:
    """Console entry of `hymate-client`; returns the exit code."""
    return run_command(client_app, "hymate-client")


if __name__ == "__main__":
    sys.exit(main())
