"""`stemmata save`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.numerics import without_blas
from stemmata.cli.options import Json, Model, Repo, a_path, metrics, open_repo, output_for, pairs
from stemmata.cli.output import Output
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from stemmata.records import Run
    from stemmata.repository import Repository
    from stemmata.saving import Saved
    from stemmata.version import Version

app = command_app()
_Words = list[str] | None


@app.command(
    cls=HelpCommand,
    epilog=examples(
        'stemmata save out/ sentiment -m "r=8, lower rate" --metric eval_loss=0.41',
        "stemmata save out/checkpoint-500 sentiment --run r8 --name r8/step-500 --parent sentiment@r8/latest",
        "stemmata save model.safetensors sentiment --config train.json --label team=search --alias staging",
        json="version (as in log), existed, left_out (list of path, reason), bytes {total, new, stored}, "
        "surprises (list of kind, text)",
    ),
)
def save(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The folder or file to save.")],
    model: Model,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The version's name. Default: made from the time."),
    ] = None,
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="TEXT", help="What this version is.")
    ] = "",
    metric: Annotated[
        _Words, typer.Option("--metric", metavar="KEY=NUMBER", help="A metric; may be given again.")
    ] = None,
    config: Annotated[
        _Words,
        typer.Option(
            "--config",
            metavar="KEY=VALUE|FILE",
            help="A setting, or a JSON file of them; may be given again.",
        ),
    ] = None,
    parent: Annotated[
        _Words,
        typer.Option(
            "--parent",
            metavar="REF",
            help="What it came from; may be given again. Default: the run's newest.",
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="The training run it belongs to.")
    ] = None,
    step: Annotated[int | None, typer.Option("--step", metavar="N", help="Optimizer step.")] = None,
    epoch: Annotated[float | None, typer.Option("--epoch", metavar="N", help="Epoch.")] = None,
    label: Annotated[
        _Words, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be given again.")
    ] = None,
    alias: Annotated[
        _Words,
        typer.Option("--alias", metavar="NAME", help="Point this alias at it, in the same commit."),
    ] = None,
    include: Annotated[
        _Words,
        typer.Option(
            "--include", metavar="GLOB", help="Save what is left out by default; may be given again."
        ),
    ] = None,
    exclude: Annotated[
        _Words, typer.Option("--exclude", metavar="GLOB", help="Leave out; may be given again.")
    ] = None,
    allow_broken: Annotated[
        bool, typer.Option("--allow-broken", help="Save files with a broken header as plain bytes.")
    ] = False,
    reread: Annotated[
        bool, typer.Option("--reread", help="Read also files that nothing has touched since they were saved.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse what is surprising against its parent.")
    ] = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Save a folder or a file as a new version.

    Nothing is visible until every byte is durable, and what is stored already costs nothing again. A
    Trainer's checkpoint-* folders, runs/ and caches are left out, training_args.bin is kept as JSON
    without its secrets, and files whose names say that they hold secrets (.env, id_rsa, hf_token.txt)
    are left out unless --include names them; what was left out is printed.
    """
    without_blas()
    from stemmata import capturing
    from stemmata.recording import SaveRequest

    output = output_for(context, as_json)
    with open_repo(context, repo) as repository, output.progress("saving") as progress:
        request = SaveRequest(
            source=a_path(source, "SOURCE"),
            model=model,
            name=name,
            metrics=metrics(metric),
            config=settings(config),
            message=message,
            parents=[repository.get(p).id for p in parent] if parent else None,
            run=_run(repository, model, run),
            step=step,
            epoch=epoch,
            labels=pairs(label, "--label"),
            alias=_only(alias),
            include=include or (),
            exclude=exclude or (),
            allow_broken=allow_broken,
            reread=reread,
            strict=strict,
            author=repository.session.author,
            progress=progress,
        )
        with capturing.beside() as request.captured:
            version, saved = repository.save_request(request)
        if output.json:
            output.document(_document(version, saved))
        else:
            _tell(output, version, saved)


def _only(aliases: list[str] | None) -> str | None:
    """One alias can move with a save; of several the last would be taken and the others forgotten."""
    if aliases and len(set(aliases)) > 1:
        reason = "one alias moves with a save; set the others with: stemmata alias set MODEL NAME REF"
        raise InvalidArgument(argument="--alias", reason=reason)
    return aliases[0] if aliases else None


def settings(words: list[str] | None) -> dict[str, object]:
    """--config words: KEY=VALUE with a JSON value or plain text, or a JSON file of an object."""
    import msgspec

    found: dict[str, object] = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if equals:
            try:
                found[key] = msgspec.json.decode(value)
            except msgspec.DecodeError:
                found[key] = value
            continue
        try:
            content = msgspec.json.decode(Path(word).read_bytes())
        except (OSError, msgspec.DecodeError, RecursionError) as error:
            why = getattr(error, "strerror", None) or error
            reason = f"{word!r} is neither key=value nor a readable JSON file ({why})"
            raise InvalidArgument(argument="--config", reason=reason) from None
        if not isinstance(content, dict):
            raise InvalidArgument(argument="--config", reason=f"{word!r} holds no JSON object")
        found.update(content)
    return found


def _run(repository: Repository, model: str, name: str | None) -> Run | None:
    """The run of that name, going on if the model has it already."""
    if name is None:
        return None
    from stemmata.ids import fresh_txn
    from stemmata.names import clean_name
    from stemmata.records import Run

    name = clean_name(name, reserved=frozenset())  # refused as the name of a run, not as a reference
    try:
        known = repository.get(f"{model}@{name}/latest").run
    except NotFound:
        known = None
    return known or Run(id=fresh_txn(), name=name)


def _document(version: Version, saved: Saved) -> dict[str, object]:
    return {
        "version": version.to_dict(),
        "existed": saved.existed,
        "left_out": [{"path": path, "reason": reason} for path, reason in saved.left_out],
        "bytes": {"total": saved.bytes_total, "new": saved.bytes_new, "stored": saved.bytes_stored},
        "surprises": saved.surprises,
    }


def _tell(output: Output, version: Version, saved: Saved) -> None:
    from stemmata.cli.listing import DIM, ID, name_of
    from stemmata.cli.styled import Text

    line = Text("Saved ")
    line.append_text(name_of(version, model=True))
    line.append(f"  {version.short}", ID)
    files = text.count(version.record.content.files, "file")
    stored = f"{text.size(saved.bytes_new)} new, kept in {text.size(saved.bytes_stored)}"
    output.show(line, Text(f"  {files}, {text.size(version.size)}; {stored}", DIM))
    for path, reason in saved.left_out:
        output.show(Text(f"  left out {text.plain(path)}: {reason}", DIM))
    if saved.left_out and version.kind == "files":
        # A Trainer's output folder of which only checkpoints were left out would pass for a model.
        output.show(Text("  note: there is no model in what was saved", "yellow"))
