"""Help texts: one plain layout for every command, with examples. Owns how help looks.

Made without rich, so that asking for help is the fastest thing the program does.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from stemmata.cli.output import styles_of, width_of
from stemmata.cli.params import lighten
from stemmata.cli.styled import Text, escaped

_WIDEST = 100


def sections(**named: str | Sequence[str]) -> str:
    """An epilog: each keyword becomes a section, its lines are kept as they are."""
    parts = []
    for name, lines in named.items():
        body = lines.strip("\n").splitlines() if isinstance(lines, str) else lines
        parts.append("\n".join([name.replace("_", " "), *body]))
    return "\f".join(parts)


def examples(*lines: str, json: str = "") -> str:
    """An epilog with a command's examples and the keys of its JSON document."""
    found: dict[str, Sequence[str]] = {"Examples": [f"$ {line}" for line in lines]}
    if json:
        found["With_--json"] = textwrap.wrap(json, 76)
    return sections(**found)


class HelpCommand(TyperCommand):
    """A command whose help is rendered here."""

    def get_params(self, ctx: Any) -> Any:
        return lighten(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(render(self, ctx))


class OtherCommand(HelpCommand):
    """A command that starts another one, whose words stand behind `--`: what stands before would be read as
    our own options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises a usage error where some of the other one's words stand elsewhere."""
        behind = len(args) - args.index("--") - 1 if "--" in args else 0
        left = super().parse_args(ctx, args)
        if len(ctx.params.get("command") or ()) > behind:
            from stemmata.errors import InvalidArgument

            reason = "write -- before it, or its options would be taken for those of stemmata"
            raise InvalidArgument(argument="COMMAND", reason=reason)
        return left


class HelpGroup(TyperGroup):
    """A group whose help is rendered here."""

    def get_params(self, ctx: Any) -> Any:
        return lighten(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(render(self, ctx))


def render(command: Any, context: Any) -> str:
    """The whole help text of a command, ending in a newline."""
    width = min(width_of(sys.stdout), _WIDEST)
    blocks = [f"{_head('Usage')}  {context.command_path} {_usage(command, context)}"]
    for paragraph in (command.help or "").split("\n\n"):
        blocks.append(_indented(" ".join(paragraph.split()), width))
    arguments: list[tuple[str, str]] = []
    options: list[tuple[str, str]] = []
    for parameter in command.get_params(context):
        if not getattr(parameter, "hidden", False):
            into = arguments if parameter.param_type_name == "argument" else options
            into.append(_parameter(parameter))
    blocks.append(_listing("Arguments", arguments, width))
    for panel, rows in _commands(command).items():
        blocks.append(_listing(panel, rows, width))
    blocks.append(_listing("Options", options, width))
    for part in (command.epilog or "").split("\f"):
        name, _, body = part.partition("\n")
        if body:
            blocks.append(_head(name) + "\n" + textwrap.indent(body, "  "))
    return "\n\n".join(b for b in blocks if b) + "\n"


def _usage(command: Any, context: Any) -> str:
    words = ["[OPTIONS]"]
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            name = _parameter(parameter)[0]
            words.append(name if parameter.required else f"[{name}]")
    if isinstance(command, TyperGroup):
        words.append("COMMAND …")
    return " ".join(words)


def _parameter(parameter: Any) -> tuple[str, str]:
    words = parameter.help or ""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper()), words
    short = [o for o in parameter.opts if not o.startswith("--")]
    long = [o for o in parameter.opts if o.startswith("--")]
    shown = (f"{short[0]}, " if short else "    ") + ", ".join(long)
    if parameter.metavar and not parameter.is_flag:
        shown += f" {parameter.metavar}"
    return shown, words


def _commands(command: Any) -> dict[str, list[tuple[str, str]]]:
    panels: dict[str, list[tuple[str, str]]] = {}
    for name, entry in getattr(command, "commands", {}).items():
        panel = getattr(entry, "rich_help_panel", None) or "Commands"
        summary = (entry.help or "").strip().split("\n\n")[0]
        panels.setdefault(str(panel), []).append((name, " ".join(summary.split())))
    return panels


def _listing(title: str, rows: Sequence[tuple[str, str]], width: int) -> str:
    if not rows:
        return ""
    column = min(max(len(name) for name, _ in rows), 26)
    lines = [_head(title)]
    for name, words in rows:
        lead = f"  {name:<{column}}  "
        if len(name) > column:
            lines.append(f"  {_name(name)}")
            lead = " " * (column + 4)
        wrapped = textwrap.wrap(words, max(width - column - 4, 20)) or [""]
        lines.append((lead.replace(name, _name(name), 1) + wrapped[0]).rstrip())
        lines.extend(" " * (column + 4) + more for more in wrapped[1:])
    return "\n".join(lines)


def _indented(words: str, width: int) -> str:
    return textwrap.fill(words, width, initial_indent="  ", subsequent_indent="  ")


def _head(words: str) -> str:
    return _shown(words, "bold")


def _name(words: str) -> str:
    return _shown(words, "cyan")


def _shown(words: str, style: str) -> str:
    styled, colours = styles_of(sys.stdout)
    return escaped(Text(words, style), colours=colours) if styled else words
