"""Remaking: the part of the facade that makes a version's run again. Owns what people call for that; how it
is done is said in `reproducing`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemmata.comparing import Comparing
from stemmata.deferred import deferred
from stemmata.upkeep import Target

if TYPE_CHECKING:
    from stemmata.reproducing import planning, redoing
    from stemmata.reproducing.planning import Plan, Wanted
    from stemmata.reproducing.redoing import Remade, Repeated
else:
    planning = deferred("stemmata.reproducing.planning")
    redoing = deferred("stemmata.reproducing.redoing")

Path_ = str | os.PathLike[str]


class Remaking(Comparing):
    """What `Repository` is made on, above what compares versions."""

    def plan_reproduction(
        self,
        version: Target,
        *,
        steps: int | None = None,
        code: Path_ | None = None,
        base: Path_ | None = None,
        link: Sequence[str] = (),
        arguments: Mapping[str, str] | None = None,
        changes: Mapping[str, object] | None = None,
        work: Path_ | None = None,
    ) -> Plan:
        """What `reproduce` (or, with `changes`, `repeat`) would do, and nothing done: what is restored and
        from where, what is missing, how this machine differs, the command. Raises as they do but
        CannotReproduce: `blocked` of the plan lists why it cannot be run.
        """
        wanted = _wanted(steps, code, base, link, arguments, changes)
        return redoing.plan(self.get(version), wanted, _path(work))

    def reproduce(
        self,
        version: Target,
        *,
        steps: int | None = None,
        timeout: float | None = None,
        work: Path_ | None = None,
        keep: bool = False,
        code: Path_ | None = None,
        base: Path_ | None = None,
        link: Sequence[str] = (),
        arguments: Mapping[str, str] | None = None,
        rtol: Any = None,
        atol: Any = None,
        why: str = "",
        told: Callable[[str, Plan], object] | None = None,
        output: Callable[[bytes], object] | None = None,
    ) -> Remade:
        """Make a version's run again in a fresh folder, from what was captured, and give a verdict: is it the
        same? The verdict is kept with the version, an annotation. It runs that version's code.

        Code comes from git's commit and the captured files, the base model from this repository or from where
        it was, the command's versions go to a repository in the work folder. Nothing is installed.

        `steps`: only the first steps of a Trainer are run and judged. `timeout` in seconds, after which all
        that was started is ended. `work`: an empty folder to work in, which is kept; else one of its own,
        which is removed unless `keep`. `code`: a clone that has the commit, where the recorded place has it
        no more; `base`: a folder with the base model; `link`: large files of the run's folder that are
        linked, not copied; `arguments`: values for arguments that were masked, by option. `rtol`, `atol`:
        the tolerance, by default that of `torch.testing`. `told` hears of each stage, `output` of what the
        command prints, until it raises something.

        Raises CannotReproduce, ReproductionFailed, CommandNotStarted, BaseMismatch, InvalidArgument, Damage.
        """
        settings = redoing.Settings(_path(work), keep, timeout, rtol, atol, why, told, output)
        return redoing.reproduce(
            self.get(version), _wanted(steps, code, base, link, arguments, None), settings
        )

    def repeat(
        self,
        version: Target,
        changes: Mapping[str, object],
        *,
        timeout: float | None = None,
        work: Path_ | None = None,
        keep: bool = False,
        code: Path_ | None = None,
        base: Path_ | None = None,
        link: Sequence[str] = (),
        arguments: Mapping[str, str] | None = None,
        told: Callable[[str, Plan], object] | None = None,
        output: Callable[[bytes], object] | None = None,
    ) -> Repeated:
        """Run a version's command again with other training arguments: `repeat(v, {"learning_rate": 1e-5})`.

        Its versions are saved into this repository, as a run of their own: each is labelled with the version
        that it `repeats` and with what was `changed`. Everything else is as with `reproduce`.

        Raises UnknownSetting, and as `reproduce`.
        """
        settings = redoing.Settings(_path(work), keep, timeout, told=told, output=output)
        wanted = _wanted(None, code, base, link, arguments, changes)
        return redoing.repeat(self.get(version), wanted, settings)


def _wanted(
    steps: int | None,
    code: Path_ | None,
    base: Path_ | None,
    link: Sequence[str],
    arguments: Mapping[str, str] | None,
    changes: Mapping[str, object] | None,
) -> Wanted:
    links = [link] if isinstance(link, str) else link
    return planning.Wanted(steps, _path(code), _path(base), links, arguments or {}, changes or {})


def _path(path: Path_ | None) -> Path | None:
    return Path(path) if path is not None else None
