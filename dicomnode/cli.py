"""The command line. Errors go to stderr; exit status 0 only on success, 1 for a failure, 2 for wrong usage."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from dicomnode import config as configuration
from dicomnode.errors import NodeError
from inference import evaluation, training

if TYPE_CHECKING:
    from dicomnode.config import Config
    from dicomnode.network.send import Address

# Commands import what they need themselves: `dicomnode echo` must not wait for torch and highdicom. Of training and
# evaluation, only the names of their tasks are imported here.

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A DICOM node that listens for spine studies and returns structured reports and segmentations.\n\n"
    "Start with `dicomnode doctor`, then `dicomnode serve`. Every command has --help. "
    "Research use only: the supplied models are trained on synthetic phantoms.",
)
config_app = typer.Typer(no_args_is_help=True, help="Check or show the configuration.")
app.add_typer(config_app, name="config")
console = Console(width=None if sys.stdout.isatty() else 160)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="DICOMNODE_CONFIG", help="TOML file; see config/dicomnode.toml.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto is a GPU if there is one.")]
Calling = Annotated[str, typer.Option("--calling", help="Our AE title as the peer sees it.")]
Data = Annotated[
    str | None,
    typer.Option(metavar="NAME:PLACE", help="Labelled data instead of the configured phantoms: rsna2022:FOLDER, ..."),
]


def main() -> None:
    """Entry point: turn the errors that people are meant to read into one line on stderr."""
    from inference.datasets.labelled import UnusableData
    from inference.pipeline import UnknownPipeline
    from inference.weights import UntrustedWeights

    try:
        app()
    except (NodeError, UnknownPipeline, UntrustedWeights, UnusableData) as error:
        print(f"dicomnode: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has seen enough
        os._exit(1)


@app.command()
def serve(config: ConfigFile = None) -> None:
    """Run the node: receive studies, analyse them, send the results. SIGTERM stops it cleanly."""
    from dicomnode import logs, supervise

    logs.configure("supervisor")
    supervise.serve(configuration.load(config))


@app.command()
def process(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the result objects.")],
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Analyse files without a network; ends with 0 if every study got a result or a "not applicable"."""
    from functools import cache, partial

    from dicomnode import answer, report, selection
    from dicomnode import process as offline
    from inference import pipeline

    settings = configuration.load(config)
    rules = selection.load(configuration.CONFIG_DIR / "selection.toml")
    load = cache(partial(pipeline.load, config_dir=configuration.CONFIG_DIR, device=settings.inference.device))
    studies = offline.read_studies(paths, lambda path, why: _note(f"{path}: {why}"))
    if not studies:
        raise NodeError("no DICOM instance was found", hint="give DICOM files, or a folder that holds some")
    documents = []
    for number, study in enumerate(studies, start=1):
        _note(f"study {number} of {len(studies)}: {len(study.instances)} instances")
        documents.append(offline.process(study, out, rules=rules, origin=answer.origin(settings), load=load))
    _print_json({"studies": documents}) if as_json else console.print(*map(report.table, documents), sep="\n")
    if any(document["state"] == "failed" for document in documents):
        raise typer.Exit(1)


@app.command()
def send(
    path: Annotated[Path, typer.Argument(help="A DICOM file or a folder of them.")],
    to: Annotated[str, typer.Option("--to", help="AE_TITLE@HOST:PORT")],
    calling: Calling = "DICOMNODE",
) -> None:
    """Send DICOM files by C-STORE."""
    from rich.progress import Progress

    from dicomnode.network.send import send as send_files

    if not path.exists():
        raise NodeError(f"{path} does not exist")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("sending", total=len(files))
        outcomes = send_files(files, _address(to), calling_ae=calling, progress=lambda _: progress.advance(bar))
    refused = [outcome for outcome in outcomes if outcome.problem]
    for outcome in refused:
        _note(": ".join(filter(None, (str(outcome.path), outcome.problem, outcome.comment))))
    console.print(f"{len(outcomes) - len(refused)} of {len(files)} sent")
    if refused:
        raise typer.Exit(1)


@app.command()
def echo(peer: Annotated[str, typer.Argument(help="AE_TITLE@HOST:PORT")], calling: Calling = "DICOMNODE") -> None:
    """Ask another node whether it is there, by C-ECHO."""
    from dicomnode.network.echo import echo as ask

    address = _address(peer)
    console.print(f"{address} answered in {ask(address, calling_ae=calling) * 1e3:.0f} ms")


@app.command()
def status(
    study: Annotated[
        str | None, typer.Argument(help="Study Instance UID or short id; all studies if left out.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show what the node knows: states, reasons, findings, deliveries."""
    from dicomnode import disk, report, schema

    settings = configuration.load(config)
    ledger = _ledger(settings)
    if settings.data_dir.exists() and (room := disk.room(settings.data_dir, settings.limits.free_mb)):
        _note(room)
    if study is None and not as_json:
        console.print(report.overview(ledger))
        if undelivered := report.undelivered(ledger):
            console.print(undelivered)
        return
    uids = [row["uid"] for row in ledger.rows(schema.study)] if study is None else [_known(ledger, study)]
    documents = [report.stored_document(ledger, uid) for uid in uids]
    _print_json({"studies": documents}) if as_json else console.print(*map(report.table, documents), sep="\n")


@app.command()
def instances(
    digests: Annotated[bool, typer.Option("--digests", help="Also the SHA-256 of each stored data set.")] = False,
    config: ConfigFile = None,
) -> None:
    """List every stored instance; digests are computed from the disk, not from memory of what was received."""
    from dicomnode.spool import digest_of

    for instance in _ledger(configuration.load(config)).instances():
        print(instance.sop_uid, digest_of(instance)) if digests else print(instance.sop_uid)


@app.command()
def retry(
    study: Annotated[str | None, typer.Argument(help="Study Instance UID or short id.")] = None,
    destination: Annotated[
        str | None, typer.Option(help="Deliveries to this one; of every study if none is given.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that failed.")] = False,
    config: ConfigFile = None,
) -> None:
    """Try again what failed, and what waits for its next try: of a study, to a destination, or all."""
    if everything == (study is not None or destination is not None):
        raise typer.BadParameter("give a study, --destination or --all")
    settings = configuration.load(config)
    names = [peer.name for peer in settings.destination]
    if destination is not None and destination not in names:
        raise NodeError(f"no destination {destination!r}", hint=f"configured: {', '.join(names) or 'none'}")
    ledger = _ledger(settings)
    uid = None if study is None else _known(ledger, study)
    console.print(f"{ledger.retry(uid, destination)} failed task(s) put back")


@app.command()
def acknowledge(
    study: Annotated[str, typer.Argument(help="Study Instance UID or short id.")], config: ConfigFile = None
) -> None:
    """Let a failed study go: it is deleted by the rules of [retention] like one that was delivered."""
    from dicomnode import ledger_retention

    ledger = _ledger(configuration.load(config))
    if not ledger_retention.acknowledge(ledger, _known(ledger, study)):
        raise NodeError(f"study {study} has not failed")


@app.command()
def purge(config: ConfigFile = None) -> None:
    """Delete all images, results and records of one patient for good, also what was not delivered.

    The Patient ID is asked for, or read from standard input: on the command line other users would see it.
    """
    from dicomnode import retention
    from dicomnode.audit import Trail
    from dicomnode.spool import Spool

    settings = configuration.load(config)
    ledger = _ledger(settings)
    patient = typer.prompt("Patient ID", err=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not patient.strip():
        raise NodeError("no Patient ID on standard input")
    found, busy = retention.purge(ledger, Spool(settings.data_dir / "spool"), patient.strip(), Trail(settings).deleted)
    console.print(f"{found - len(busy)} of {found} study(ies) deleted")
    if busy:
        raise NodeError(f"still worked on: study {', '.join(map(str, busy))}", hint="run it again when it has ended")


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the pipelines and their models, with checksums verified."""
    from dataclasses import asdict

    from inference import pipeline

    names = pipeline.names(configuration.CONFIG_DIR)
    listed = {name: asdict(pipeline.verify(name, configuration.CONFIG_DIR)) for name in names}
    if as_json:
        _print_json(listed)
        return
    for name, model in listed.items():
        console.print(f"[bold]{name}[/bold]: {model['name']} {model['version']}, sha256 {model['sha256'][:16]}")
        console.print(f"  {model['trained_on']}\n  {model['notice']}", highlight=False)


@app.command()
def doctor(config: ConfigFile = None) -> None:
    """Check ports, disk, models, decoders, GPU, clock and destinations, and say what to do."""
    from rich.markup import escape

    from dicomnode.doctor import examine

    wrong = 0
    for check in examine(configuration.load(config)):
        wrong += not check.ok
        console.print("[green]ok[/green]  " if check.ok else "[red]FIX[/red] ", f"{check.name}: {escape(check.detail)}")
    if wrong:
        raise NodeError(f"{wrong} check(s) need attention")


@app.command()
def conformance(config: ConfigFile = None) -> None:
    """Print the DICOM conformance statement of this configuration, as Markdown."""
    from dicomnode.conformance import statement

    print(statement(configuration.load(config)), end="")


@config_app.command("check")
def config_check(config: ConfigFile = None) -> None:
    """Say whether the configuration and the selection rules can be used."""
    from dicomnode import selection

    configuration.load(config)
    selection.load(configuration.CONFIG_DIR / "selection.toml")
    console.print("the configuration can be used")


@config_app.command("show")
def config_show(config: ConfigFile = None) -> None:
    """Print every setting as it is in force: defaults, file and environment together."""
    print(configuration.load(config).model_dump_json(indent=2))


@app.command()
def phantom(
    kind: Annotated[str, typer.Argument(help="cervical-ct, cervical-mr or lumbar-mr")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the studies.")],
    count: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(min=0, help="950000 to 999999 were never used for training.")] = 950_000,
    profile: Annotated[str, typer.Option(help="easy, standard or hard")] = "standard",
    truth: Annotated[
        bool, typer.Option("--truth", help="Also what was planted, in OUT/truth: JSON, label maps, boxes of MR as XML.")
    ] = False,
) -> None:
    """Make synthetic studies, marked as such in their headers: OUT/<study>/*.dcm for seeds SEED, SEED + 1, ..."""
    from inference.phantom.specification import FIRST_RESERVED_SEED, PROFILES
    from inference.phantom.studies import PRODUCTS, write_studies

    if kind not in PRODUCTS:
        raise typer.BadParameter(f"unknown kind {kind!r}, there is {', '.join(PRODUCTS)}", param_hint="KIND")
    if profile not in PROFILES:
        raise typer.BadParameter(f"{profile!r} is none of {', '.join(PROFILES)}", param_hint="--profile")
    if seed + count > FIRST_RESERVED_SEED:
        raise typer.BadParameter(
            f"seeds from {FIRST_RESERVED_SEED} are reserved for independent evaluation", param_hint="--seed"
        )
    try:
        write_studies(out, kind=kind, count=count, seed=seed, profile=profile, truth=truth, progress=_note)
    except OSError as error:
        raise NodeError(f"the phantoms could not be written to {out}: {error}") from error
    console.print(f"{count} study(ies) in {out}")


@app.command()
def train(
    task: Annotated[str, typer.Argument(help=", ".join(training.TASKS))],
    out: Annotated[Path, typer.Option("--out", help="Folder for weights, manifest, model card and checkpoints.")],
    data: Data = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps the cases, about 25 MB each; default OUT/cases.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Train a pipeline's models with the settings of config/training/; if interrupted, it goes on when run again."""
    _known_task(task, training.TASKS)
    _log_to_stderr()
    training.run(task, config_dir=configuration.CONFIG_DIR, out=out, data=data, cache=cache, device=_usable(device))


@app.command()
def evaluate(
    what: Annotated[str, typer.Argument(help=f"{', '.join(evaluation.TASKS)}; {', '.join(evaluation.PROTOCOLS)}")],
    cache: Annotated[
        Path, typer.Option(help="Folder that keeps the cases, about 25 MB each; can be that of training.")
    ],
    data: Data = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the tables.")] = Path("docs/results"),
    device: Device = "auto",
) -> None:
    """Measure the model of a task on cases that it never saw, or repeat a paper's experiment with its trainings."""
    _known_task(what, (*evaluation.TASKS, *evaluation.PROTOCOLS))
    _log_to_stderr()
    run = evaluation.run if what in evaluation.TASKS else evaluation.run_protocol
    run(what, config_dir=configuration.CONFIG_DIR, out=out, data=data, cache=cache, device=_usable(device))


def _usable(device: str) -> str:
    from inference import engine

    try:
        engine.choose_device(device)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return device


def _known_task(task: str, tasks: Collection[str]) -> None:
    if task not in tasks:
        raise typer.BadParameter(f"unknown task {task!r}, there is {', '.join(tasks)}")


def _address(text: str) -> Address:
    from dicomnode.network.send import Address

    title, _, place = text.partition("@")
    host, _, port = place.rpartition(":")
    if not (title and host and port.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not AE_TITLE@HOST:PORT")
    return Address(ae_title=title, host=host.strip("[]"), port=int(port))


def _ledger(config: Config) -> Any:
    from dicomnode import ledger

    if config.ledger_url.startswith("sqlite:") and not config.data_dir.exists():
        raise NodeError(f"no node has run on {config.data_dir}", hint="set --config or data_dir")
    return ledger.connect(config.ledger_url)


def _known(ledger: Any, study: str) -> str:
    uid: str | None = ledger.study_uid(study)
    if uid is None:
        raise NodeError(f"no study {study}", hint="dicomnode status lists them")
    return uid


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _print_json(document: Any) -> None:
    print(json.dumps(document, ensure_ascii=False))
