"""`stemmata doctor`."""

from __future__ import annotations

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Repo, output_for, repo_folder
from stemmata.cli.registry import command_app

app = command_app()
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata doctor",
        "stemmata doctor -R /data/models --json",
        json="healthy (bool), findings (list of name, state, found, advice)",
    ),
)
def doctor(context: typer.Context, repo: Repo = None, as_json: Json = False) -> None:
    """Look at Python, packages, repository, disk and cache; say what to do.

    Changes nothing; verifies no bytes, which is what check is for. Exits with 1 if something stands in
    the way.
    """
    from stemmata.doctor import examine

    output = output_for(context, as_json)
    findings = examine(repo_folder(context, repo))
    healthy = all(each.state != "problem" for each in findings)
    if output.json:
        output.document({"healthy": healthy, "findings": [each._asdict() for each in findings]})
    else:
        from stemmata.cli.styled import Text

        column = max(len(each.name) for each in findings)
        for each in findings:
            line = Text(f"{each.state:<7}  ", _STYLES[each.state])
            line.append(f"{each.name:<{column}}  ", "default")
            line.append(text.plain(each.found), "default")
            output.show(line)
            if each.advice:
                output.show(Text(f"{'':<7}  {'':<{column}}  {text.plain(each.advice)}", "dim"))
    if not healthy:
        raise typer.Exit(1)
