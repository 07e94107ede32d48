"""The commands and where each lives. A command's module is imported when it is used.

The table repeats each command's first help line, so that `stemmata --help` imports none of them;
a test holds the two together.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import typer

from stemmata.cli.help import HelpCommand, HelpGroup


class Entry(NamedTuple):
    """One command: its module under `commands`, its panel in the help, its first help line."""

    module: str
    panel: str
    summary: str


_BEGIN, _LOOK, _NAME, _KEEP = "Save and get back", "Look", "Name and annotate", "Keep safe"

HELP_NAMES = {"help_option_names": ["--help", "-h"]}

COMMANDS: dict[str, Entry] = {
    "init": Entry("init", _BEGIN, "Make a repository."),
    "save": Entry("save", _BEGIN, "Save a folder or a file as a new version."),
    "checkout": Entry("checkout", _BEGIN, "Write a version's files into a folder, byte for byte."),
    "run": Entry("run", _BEGIN, "Run a training command; each Trainer that it makes saves versions."),
    "watch": Entry("watch", _BEGIN, "Take in each checkpoint and final save while another program trains."),
    "import": Entry(
        "import_", _BEGIN, "Take in what trainings left behind: Trainer outputs, v_* folders, adapters."
    ),
    "log": Entry("log", _LOOK, "List versions, newest first."),
    "show": Entry("show", _LOOK, "Show one version: metrics, config, parents, files."),
    "diff": Entry("diff", _LOOK, "Show what differs between two versions, or what varies among more."),
    "best": Entry("best", _LOOK, "Show the best version of a model by a metric."),
    "search": Entry("search", _LOOK, "Find versions by metrics, config, labels and origin."),
    "blame": Entry("blame", _LOOK, "Show which version last moved each layer or tensor, and how far."),
    "bisect": Entry("bisect", _LOOK, "Find the version that broke it, by binary search with a command."),
    "reproduce": Entry(
        "reproduce",
        _LOOK,
        "Make a version's run again, as it was captured, and judge whether it is the same.",
    ),
    "repeat": Entry(
        "repeat", _BEGIN, "Run a version's command again with other training arguments, as a fork."
    ),
    "lineage": Entry("lineage", _LOOK, "Draw which version came from which, as a tree."),
    "models": Entry("models", _LOOK, "List the models of the repository."),
    "stats": Entry("stats", _LOOK, "Show how much space versions take, what was saved, and where."),
    "history": Entry("history", _LOOK, "Show who moved an alias, when and why."),
    "tag": Entry("tag", _NAME, "Give a version a tag, a name that never moves."),
    "alias": Entry("alias", _NAME, "Set, list or delete aliases, names that move."),
    "promote": Entry("promote", _NAME, "Point an alias at a version if a gate lets it pass."),
    "rollback": Entry("rollback", _NAME, "Move an alias back to what it was before."),
    "protect": Entry(
        "protect", _NAME, "Let an alias move through a gate alone; without --require, show what it asks."
    ),
    "unprotect": Entry("unprotect", _NAME, "Let a protected alias move freely again."),
    "annotate": Entry("annotate", _NAME, "Add metrics, labels, notes or an eval to a version."),
    "label": Entry("label", _NAME, "Set or remove labels of a version."),
    "delete": Entry("delete", _KEEP, "Hide versions; they can be restored for 14 days at least."),
    "restore": Entry("restore", _KEEP, "Show deleted versions again."),
    "retain": Entry(
        "retain",
        _KEEP,
        "Set what a model keeps, and delete the rest; without a rule, apply the policy it has.",
    ),
    "redact": Entry("redact", _KEEP, "Hand out no more, for good, what a version's provenance says."),
    "check": Entry("check", _KEEP, "Verify the repository."),
    "gc": Entry("gc", _KEEP, "Free the bytes that no version needs."),
    "repack": Entry("repack", _KEEP, "Code tensors anew where that makes them smaller, in fewer packs."),
    "doctor": Entry("doctor", _KEEP, "Look at Python, packages, repository, disk and cache; say what to do."),
}


class LazyGroup(HelpGroup):
    """The top-level group: knows its commands by name, and loads the one that is used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            # What help and completion need; replaced by the real one when it is used.
            self.commands[name] = HelpCommand(name, help=entry.summary, rich_help_panel=entry.panel)
        self._loaded: set[str] = set()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            self.load(args[0])
        return super().resolve_command(ctx, args)

    def load(self, name: str) -> Any:
        """The real command of that name."""
        if name not in self._loaded:
            self.commands[name] = load_command(name)
            self._loaded.add(name)
        return self.commands[name]


def load_command(name: str) -> Any:
    """Import a command's module and build its command."""
    module = import_module(f"stemmata.cli.commands.{COMMANDS[name].module}")
    command = typer.main.get_command(module.app)
    command.name = name
    return command


def command_app() -> typer.Typer:
    """An app for one command's module."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=HELP_NAMES,
    )
