"""`stemmata models`."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Repo, open_repo, output_for
from stemmata.cli.registry import command_app

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata models",
        json="models (list of name, versions, newest {id, name, created_at}, aliases {name: id}, metric, "
        "direction)",
    ),
)
def models(context: typer.Context, repo: Repo = None, as_json: Json = False) -> None:
    """List the models of the repository."""
    from stemmata.cli.listing import ALIAS, DIM, ID, NAME
    from stemmata.cli.ranking import Primary
    from stemmata.cli.tables import Column, table

    output = output_for(context, as_json)
    now = datetime.now(UTC)
    with open_repo(context, repo) as repository:
        documents = []
        columns = [
            Column("model", shrink=12),
            Column("versions", 2, right=True),
            Column("newest", 1, shrink=12),
        ]
        columns += [
            Column("id", 3),
            Column("age", 1, right=True),
            Column("metric", 4),
            Column("aliases", 2, shrink=16),
        ]
        for name in repository.models():
            versions = repository.versions(name)
            newest = versions[0] if len(versions) else None
            aliases = {alias: v.id.hex for alias, v in repository.aliases(name).items()}
            primary = Primary(repository.session.catalog.connection, name)
            metric = primary.metric
            documents.append(
                {
                    "name": name,
                    "versions": len(versions),
                    "newest": newest
                    and {"id": newest.id.hex, "name": newest.name, "created_at": newest.created_at},
                    "aliases": aliases,
                    "metric": metric,
                    "direction": primary.direction(metric) if metric else None,
                }
            )
            columns[0].add(text.plain(name), NAME)
            columns[1].add(str(len(versions)))
            columns[2].add(text.plain(newest.name) if newest else "")
            columns[3].add(newest.short if newest else "", ID)
            columns[4].add(text.age(newest.created_at, now) if newest else "", DIM)
            columns[5].add(text.plain(metric or ""))
            columns[6].add(" ".join(f"[{text.plain(a)}]" for a in aliases), ALIAS)
        if output.json:
            output.document({"models": documents})
        elif documents:
            output.show(table(columns, output.width))
        else:
            output.note("no models yet; make one with: stemmata save FOLDER MODEL")
