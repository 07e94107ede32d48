"""Tracing: the part of the facade that tells what came of what over a history: lineage, blame, bisection and
overfitting. Owns what people call for that; how each is found out is said in `histories`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Literal

from stemmata.catalog import queries
from stemmata.deferred import deferred
from stemmata.errors import InvalidArgument
from stemmata.names import name_key
from stemmata.upkeep import Target, Upkeep
from stemmata.version import Version

if TYPE_CHECKING:
    from pathlib import Path

    from stemmata.catalog.queries import VersionRow
    from stemmata.histories import bisecting, verdicts
    from stemmata.histories import blame as blaming
    from stemmata.histories import lineage as lineages
    from stemmata.histories import overfitting as overfit
    from stemmata.histories.bisection import Bisection, Judge, Trial
    from stemmata.histories.blamed import Blame
    from stemmata.histories.lineage import Lineage
    from stemmata.histories.overfitting import Overfitting
    from stemmata.histories.searching import Verdict
    from stemmata.histories.verdicts import Kept
else:
    bisecting = deferred("stemmata.histories.bisecting")
    blaming = deferred("stemmata.histories.blame")
    lineages = deferred("stemmata.histories.lineage")
    overfit = deferred("stemmata.histories.overfitting")
    verdicts = deferred("stemmata.histories.verdicts")

Test = Callable[[Version], bool | None]
"""Of a version: True it is good, False it is bad, None it cannot be tested."""


class Tracing(Upkeep):
    """What `Repository` is made on, above its upkeep."""

    def lineage(self, of: Target | None = None) -> Lineage:
        """Which version came from which: of a version, of a model, or (None) of all models.

        Of a version it is what it came from and what came from it; of a model its visible versions and what
        they came from, other models' versions and bases too. A bare model name is the model;
        `model@latest` its newest version. Deleted versions stay where something came from them.
        Raises ModelNotFound, VersionNotFound, InvalidReference.
        """
        self._session.refresh()
        if of is None:
            return lineages.of_all(self._session)
        if isinstance(of, str):
            known = queries.models(self._session.catalog.connection)
            if any(model.key == name_key(of) for model in known):
                return lineages.of_model(self._session, name_key(of))
        return lineages.of_version(self._session, self._session.row(self.get(of).id))

    def blame(
        self,
        version: Target,
        pattern: str | None = None,
        *,
        most: bool = False,
        at_least: float = 0.0,
        weights: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Blame:
        """Which version last moved each tensor of this one, and by how much; `layers` of it tells the same
        layer by layer. It goes back through first parents.

        `pattern`: only tensors that it fits: a glob over the whole name, or whole parts of it, as in
        "layer.3" or "q_proj". `most`: the version that moved it the furthest, by the L2 norm of the change.
        `at_least`: smaller changes do not count; a share of the tensor's norm before, 0.01 for 1 %.

        No weights are read: what was kept at the saves tells. Where a version has kept nothing, its list
        of tensors tells which moved, not how far; with `weights` those are read, and `progress` gets the
        bytes of each piece. Raises TensorNotInVersion, VersionNotFound, Damage, InvalidArgument.
        """
        if not at_least >= 0:
            raise InvalidArgument(argument="at_least", reason=f"{at_least} is no share of a norm")
        row = self._session.row(self.get(version).id)
        return blaming.blame(
            self._session,
            row,
            pattern,
            most=most,
            at_least=at_least,
            weights=weights,
            progress=progress,
        )

    def bisect(
        self,
        good: Target,
        bad: Target,
        test: Test | Sequence[str] | None = None,
        *,
        require: str | Sequence[str] = (),
        timeout: float | None = None,
        timeout_is: Literal["skip", "bad"] = "skip",
        by: Literal["parents", "time"] = "parents",
        run: str | None = None,
        check_ends: bool = False,
        checkout: bool = True,
        keep_as: str | None = None,
        restart: bool = False,
        told: Callable[[Trial], object] | None = None,
    ) -> Bisection:
        """The first bad version after `good` on the way to `bad`, by binary search: of 64 versions in 6
        tests.

        `test` is a function, or a command with its arguments, in which `{}` is the folder of the version's
        files (`Version.path`); its exit status means what it means to `git bisect run`: 0 good, 125 cannot
        be tested, else bad up to 127, and more ends the search. It finds STEMMATA_PATH, STEMMATA_VERSION,
        STEMMATA_REFERENCE and STEMMATA_REPO in its environment. With `checkout=False` no files are made.
        After `timeout` seconds its whole process group is ended, and the version is skipped, or bad
        (`timeout_is`).

        `require`: expressions as in `promote`; a version of which they hold is good. Stored metrics are
        judged without running anything; where they do not tell, `test` is run, which may `annotate` the
        version.

        The way leads through parents; `by="time"` takes the versions of the model, or of its run `run`, in
        the order in which they were saved. The ends are taken as said, unless `check_ends`, or their
        metrics tell.

        Each verdict of a command is kept at once, and so is one of a function if `keep_as` names it: the same
        call goes on where it was interrupted. `restart` judges anew. `told` hears of each step.

        Raises NoLine, EndsDisagree, EvaluationFailed, CommandNotStarted, BisectionUnfinished, BisectionBusy,
        InvalidArgument, InvalidExpression.
        """
        wanted = bisecting.Wanted.of(
            None if callable(test) else test,
            judge=self._judge_of(test) if callable(test) else None,
            require=require,
            timeout=timeout,
            timeout_is=timeout_is,
            by=by,
            run=run,
            check_ends=check_ends,
            checkout=checkout,
            keep_as=keep_as,
            restart=restart,
        )
        first, last = (self._session.row(self.get(each).id) for each in (good, bad))
        return bisecting.bisect(self._session, first, last, wanted, self._folder_of, told)

    def bisection(self, model: str) -> Kept | None:
        """The bisection of a model that is kept, finished or not, with its verdicts. Raises ModelNotFound."""
        self._session.refresh()
        return verdicts.kept_of(self._session, self._model_key(model))

    def overfitting(self, model: str, run: str | None = None) -> list[Overfitting]:
        """Runs of a model, or those of that name, whose training loss falls while what an evaluation measures
        gets worse: since which version, and which was the best one. By the model's primary metric, else by
        eval_loss, else by another one of an evaluation.

        A hint for runs of seven versions or more: nothing is said of what may be chance; see
        `histories.overfitting`. Raises ModelNotFound.
        """
        self._session.refresh()
        return list(overfit.of_model(self._session.catalog.connection, self._model_key(model), run))

    def _folder_of(self, row: VersionRow) -> Path:
        return Version(self._session, row).path()

    def _judge_of(self, test: Test) -> Judge:
        def judge(row: VersionRow) -> bisecting.Opinion:
            begun = monotonic()
            found = test(Version(self._session, row))
            verdict: Verdict = "skip" if found is None else "good" if found else "bad"
            return bisecting.Opinion(verdict, seconds=monotonic() - begun)

        return judge
