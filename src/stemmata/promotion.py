"""Promotion: the part of the facade that says which version is used, and on what grounds: aliases, gates,
what is added to a version later. Owns what people call for that; every operation itself lies below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stemmata.arguments import UNSET, Unset, require_text, text_of
from stemmata.catalog import queries
from stemmata.deferred import deferred
from stemmata.errors import InvalidArgument
from stemmata.names import clean_name
from stemmata.remaking import Remaking
from stemmata.upkeep import Target
from stemmata.version import Version, dataset_of_words

if TYPE_CHECKING:
    from stemmata import capture, moves
    from stemmata.evals import Eval, EvalDiff
    from stemmata.gating import Verdict
    from stemmata.moves import Move
    from stemmata.protecting import Policy, Protection
else:
    capture = deferred("stemmata.capture")
    moves = deferred("stemmata.moves")


class Promotion(Remaking):
    """What `Repository` is made on, above `Comparing`."""

    # --- aliases --------------------------------------------------------------------------------

    def alias(
        self,
        model: str,
        name: str,
        version: Target,
        *,
        why: str = "",
        expect: Target | Unset | None = UNSET,
        require: Sequence[str] = (),
        force: bool = False,
        dry_run: bool = False,
    ) -> Move:
        """Point an alias at a version; made if absent.

        With `expect` (a version, or None for "absent") it moves only from there: AliasMoved else. `require`,
        `force` and `dry_run` as in `promote`. Raises NameTaken if the name is a tag's or a version's.
        """
        return moves.set_alias(
            self._session,
            model,
            name,
            self.get(version).id,
            why=why,
            expect=expect if expect is None or isinstance(expect, Unset) else self.get(expect).id,
            require=require,
            force=force,
            dry_run=dry_run,
        )

    def promote(
        self,
        version: Target,
        alias: str,
        *,
        require: Sequence[str] = (),
        why: str = "",
        expect: Target | Unset | None = UNSET,
        force: bool = False,
        dry_run: bool = False,
    ) -> Move:
        """Point an alias of the version's model at it, if all of `require` holds.

        `require`: expressions as in `search`, where `@production.accuracy` is the value of the version that
        an alias (tag, name, `best`) names, as in `accuracy >= @production.accuracy - 0.01`. What is missing,
        NaN or measured on another dataset fails. What the alias's own policy asks for (`protect`) must hold
        as well. The gate as judged is kept in the move (`Move.evidence`). `force`, which wants a reason in
        `why`, moves it whatever the gate says, and that is kept too. With `dry_run` nothing moves: the answer
        is the move that would be made, with an empty `at`, and what would be raised is.

        Raises GateFailed (its `data["evidence"]` is the gate as judged; nothing moved), AliasMoved,
        AliasProtected, InvalidExpression, NameTaken.
        """
        found = self.get(version)
        more: dict[str, Any] = {"require": require, "force": force, "dry_run": dry_run}
        return self.alias(found.model, alias, found, why=why, expect=expect, **more)

    def gate(self, version: Target, alias: str, require: Sequence[str] = ()) -> Verdict:
        """Judge what `promote` would, and move nothing."""
        found = self.get(version)
        return moves.gate(self._session, found.model, alias, found.id, require)

    def protect(self, model: str, alias: str, require: Sequence[str], *, why: str = "") -> Policy:
        """From now on the alias moves only to versions of which `require` holds; see `promote`.

        It replaces what the alias asked before. Without requirements it moves by force alone. A rollback to
        what the alias has been is always possible.
        """
        from stemmata.protecting import protect  # it needs what judges gates

        return protect(self._session, model, alias, require, why=why)

    def unprotect(self, model: str, alias: str, *, why: str = "") -> None:
        """The alias moves freely again. Raises NotFound if it is not protected."""
        from stemmata.protecting import unprotect

        unprotect(self._session, model, alias, why=why)

    def protection(self, model: str, alias: str) -> Policy | None:
        """What the alias asks of a version; None if it is not protected."""
        from stemmata.protecting import policy_of

        self._session.refresh()
        return policy_of(self._session.catalog.connection, self._model_key(model), clean_name(alias))

    def protections(self, model: str, alias: str) -> list[Protection]:
        """Every change of what the alias asks, oldest first: when, who, what."""
        from stemmata.protecting import protections

        self._session.refresh()
        return protections(self._session, self._model_key(model), require_text("name", alias))

    def rollback(self, model: str, name: str, *, to: Target | None = None, why: str = "") -> Move:
        """Point an alias back at where it stood before, or at `to`. A second rollback goes further.

        Raises NothingToRollBack, ModelNotFound, VersionNotFound.
        """
        target = self.get(to).id if to is not None else None
        return moves.rollback(self._session, model, name, to=target, why=why)

    def unalias(self, model: str, name: str, *, why: str = "", force: bool = False) -> Move:
        """Delete an alias; its history stays. A protected one goes only by `force`, with a reason."""
        return moves.delete_alias(self._session, model, name, why=why, force=force)

    def history(self, model: str, name: str) -> list[Move]:
        """Every move of an alias, oldest first: when, who, from, to, why."""
        self._session.refresh()
        return moves.history(self._session, self._model_key(model), require_text("name", name))

    def aliases(self, model: str) -> dict[str, Version]:
        """Aliases of a model and where they point."""
        self._session.refresh()
        refs = queries.refs(self._session.catalog.connection, self._model_key(model), kind="alias")
        return {r.name: Version(self._session, self._session.row(r.target)) for r in refs}

    # --- adding to versions -----------------------------------------------------------------

    def annotate(
        self,
        version: Target,
        *,
        metrics: Mapping[str, float] | None = None,
        labels: Mapping[str, str | None] | None = None,
        notes: str = "",
        event: str = "",
        why: str = "",
        dataset: str = "",
        fingerprint: str = "",
        source: str = "",
    ) -> Version:
        """Add metrics, labels or notes to a version; the record itself stays as it is.

        `dataset`, its `fingerprint` (any text that changes with it) and `source` (what measured) are kept
        with the metrics: see `Version.measurements`. Later values win; a label of None removes it.
        Raises InvalidArgument if there is nothing to add.
        """
        if not metrics and not labels and not notes:
            raise InvalidArgument(argument="annotate", reason="give metrics, labels or notes")
        found = self.get(version).id
        moves.annotate(
            self._session,
            found,
            metrics=metrics or {},
            labels=labels or {},
            notes=notes,
            event=event,
            why=why,
            dataset=dataset_of_words(dataset, fingerprint),
            source=capture.mask(text_of(source)),
        )
        return Version(self._session, self._session.row(found))

    def add_eval(self, version: Target, name: str, **said: Any) -> Eval:
        """Keep an eval with a version: see `Version.add_eval`."""
        return self.get(version).add_eval(name, **said)

    def diff_evals(
        self,
        a: Target,
        b: Target,
        name: str,
        *,
        key: str | None = None,
        score: str | None = None,
        show: int = 5,
    ) -> EvalDiff:
        """What became of each example of an eval from version `a` to `b`: fixed, broken, unchanged.

        Examples are matched by `key` (a field; "line": their place), else by their id, their inputs or
        their place, whichever both have first. `score` is the field that says how good an answer was:
        true or false, 1 or 0, or a number. The first `show` of each kind are part of the answer.
        A version of a moment has the evals of that moment.
        Raises EvalNotFound, Redacted, InvalidArgument.
        """
        from stemmata.evals import diff_evals

        one, two = self.get(a), self.get(b)
        a_row, b_row = self._session.row(one.id), self._session.row(two.id)
        at = (one.at, two.at)
        return diff_evals(self._session, a_row, b_row, name, key=key, score=score, show=show, at=at)
