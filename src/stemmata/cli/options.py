"""Options that commands share, and the opening of the repository they speak of."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli.output import Output
from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from stemmata.repository import Repository

Repo = Annotated[
    str | None,
    typer.Option(
        "--repo",
        "-R",
        metavar="DIR",
        help="The repository. Default: $STEMMATA_REPO, else .stemmata/ here or above.",
    ),
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON document instead of text.")]
At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="WHEN", help='As things stood then: a date, a time or a phrase such as "3 weeks ago".'
    ),
]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, kept in the history.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask.")]
Html = Annotated[
    str | None,
    typer.Option(
        "--html", metavar="FILE", help="Write it as one page with pictures, which needs no network."
    ),
]
Heatmap = Annotated[
    bool, typer.Option("--heatmap", metavar="", help="Draw how far each module of each layer moved.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", metavar="", help="Show what would be done, and change nothing.")
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.", show_default=False)]
Ref = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="A version: model@production, model@run/epoch-3, model@best, an id …",
        show_default=False,
    ),
]
Refs = Annotated[
    list[str] | None,
    typer.Argument(metavar="REF…", help="Versions, as in every command.", show_default=False),
]

TakeIn = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="GLOB",
        help="Take in what is left out, such as optimizer.pt; may be given again.",
    ),
]
RefOfModel = Annotated[
    str, typer.Argument(metavar="REF", help="A version: an id, model@name, or @name within this model.")
]


class Session:
    """What the command line says before and after the command's name."""

    def __init__(self, repo: str | None, json: bool, up_to_damage: bool = False) -> None:
        self.repo = repo
        self.json = json
        self.up_to_damage = up_to_damage


def output_for(context: typer.Context, json: bool) -> Output:
    shared = context.find_object(Session)
    return Output(json=json or (shared is not None and shared.json))


def repo_path(context: typer.Context, repo: str | None) -> str | None:
    """--repo after the command's name, else before it; None lets the library look."""
    shared = context.find_object(Session)
    return repo if repo is not None else shared.repo if shared is not None else None


def open_repo(context: typer.Context, repo: str | None) -> Repository:
    """The repository of this command line. Raises RepositoryNotFound."""
    from stemmata import repository

    shared = context.find_object(Session)
    up_to_damage = shared is not None and shared.up_to_damage
    opened = repository.open(repo_path(context, repo), up_to_damage=up_to_damage)
    damage = opened.session.damage
    if damage is not None:
        entry = damage.data["entry"]
        output_for(context, False).note(f"log entry {entry} is damaged; this is what came before it")
    return opened


def repo_folder(context: typer.Context, repo: str | None) -> Path:
    """Where that repository lies, without opening it: a damaged one can still be checked."""
    from stemmata import repository

    chosen = repo_path(context, repo)
    return (
        repository.meant(chosen)
        if chosen is not None
        else repository.locate() or Path.cwd() / repository.FOLDER
    )


_OF_REPOSITORIES = frozenset(("log", "packs", "bundles", "cache", "tmp", "stemmata.json"))


def a_path(given: str, argument: str) -> Path:
    """A path of the command line. Raises InvalidArgument for an empty one: as `Path` it is the working
    folder, which nobody means who wrote "$OUT"."""
    if not given:
        raise InvalidArgument(argument=argument, reason="it is empty")
    return Path(given)


def outside(target: Path, argument: str) -> Path:
    """A file or folder to write, which is no repository and lies in no folder that one has for itself: a
    project's own folder may be one. Raises InvalidArgument."""
    try:
        real = target.resolve()
    except (OSError, RuntimeError):
        reason = f"{target} cannot be reached: a link on the way leads to itself"
        raise InvalidArgument(argument=argument, reason=reason) from None
    from stemmata import repository

    below = ""
    for folder in (real, *real.parents):
        is_repository = (folder / "stemmata.json").is_file() and (folder / "log").is_dir()
        if is_repository and (not below or below in _OF_REPOSITORIES or folder.name == repository.FOLDER):
            raise InvalidArgument(argument=argument, reason=f"{target} lies in the repository {folder}")
        below = folder.name
    return target


def instant(at: str | None) -> datetime | None:
    """The UTC instant that --at means, seen from now. Raises InvalidTime."""
    if at is None:
        return None
    from stemmata.timephrases import parse_when

    return parse_when(at, datetime.now(UTC))


def of_model(model: str, reference: str) -> str:
    """REF where the model is named already: `@name` is short for `model@name`."""
    return model + reference if reference.startswith("@") else reference


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """`key=value` words as a dict, in order; a repeated key is refused."""
    found: dict[str, str] = {}
    for word in given or ():
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise InvalidArgument(argument=option, reason=f"{word!r} is not key=value")
        if key.strip() in found:
            raise InvalidArgument(argument=option, reason=f"{key.strip()!r} is given twice")
        found[key.strip()] = value
    return found


def metrics(given: list[str] | None) -> dict[str, float]:
    """`--metric key=number` words; nan and inf are numbers here."""
    found = {}
    for key, value in pairs(given, "--metric").items():
        try:
            found[key] = float(value)
        except ValueError:
            raise InvalidArgument(argument="--metric", reason=f"{value!r} is not a number ({key})") from None
    return found
