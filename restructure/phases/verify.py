"""Verify: every row of the shadow is the transform of its row in the source, and there is no other.

Several workers compare ranges of keys and suspect what differs, while the main thread goes on applying
changes. Then it judges the suspects, which nobody else may: see engine/judge.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection

from psycopg import sql

from restructure.catalog import verification, verified
from restructure.catalog.suspects import Suspects
from restructure.catalog.verification import Stretch, Verification
from restructure.engine.comparison import Comparison
from restructure.engine.digest import Digest
from restructure.engine.extras import Extras
from restructure.engine.judge import Judge
from restructure.engine.repair import repair
from restructure.engine.touched import Touched
from restructure.engine.verifier import Verifier, sample
from restructure.engine.work import Work
from restructure.errors import NotNow, Retryable
from restructure.model.failpoint import failpoint
from restructure.phases.catchup import apply_all, apply_pending, until_few_pending
from restructure.phases.refused_ddl import told
from restructure.postgres.planner import force_index_lookups
from restructure.shape.comparable import read_comparable

SHOWN_KEYS = 20
"""Keys that differ and are listed; their number is given in any case."""

_MOST_PAGES = 8_192
_BLOCKS_PER_UNIT = 32
_PAGES_PER_BOUND = 4
"""Bounds are the keys of some pages, every fourth of these, so that units are of similar size."""

_ROUNDS = 3
_EXACT_ROUNDS = 3
_PASSES = 3
_REPAIRS = 20


class Verifying:
    """The verification of one job in this process. Made once the job is ready.

    ``compared`` are the columns of the shadow that are looked at, all that the transform fills
    where it is None.
    """

    def __init__(self, work: Work, compared: Collection[str] | None = None) -> None:
        shadow = work.made_shadow()
        key = work.source.key
        facts = read_comparable(
            work.state,
            work.source.relation,
            shadow.relation,
            shadow.mapping,
            [column.name for column in key],
        )
        self.suspects = Suspects(work.names, len(key))
        self._digest = Digest(
            work.source.relation,
            shadow.relation,
            shadow.mapping,
            work.spool,
            self.suspects,
            facts,
            compared,
        )
        self.comparison = Comparison(self._digest)
        self._session = work.connect("judge")
        force_index_lookups(self._session)
        self.judge = Judge(self._digest, self.suspects, self._session)
        self._facts = facts
        self._work = work
        touched = Touched(work.job.id, work.names, work.spool, self.suspects, facts.ranged)
        self._mark = touched.mark
        if self.suspects.there(work.state):
            work.ready_applier().before = self._mark
        self._at_least = False

    def close(self) -> None:
        """Close its session."""
        self._session.close()

    def state(self) -> Verification | None:
        """What is known, None before the first verification."""
        return verification.load(self._work.state, self._work.job.id, self._work.names)

    def verifier(self, units: int) -> Verifier:
        """Workers for bounds that make so many units."""
        work = self._work
        return Verifier(
            self.comparison,
            self.suspects,
            work.connect,
            job=work.job.id,
            names=work.names,
            units=units,
            target=work.plan.verify.chunk_target.total_seconds(),
            control=work.control,
            progress=work.progress,
        )

    def run(self, *, repairing: bool = False) -> None:
        """Verify as the plan says, from where an earlier process stopped; repair where asked to.

        Raises VerifyMismatch with the keys that differ, NotNow where keys never come to rest.
        """
        work = self._work
        until_few_pending(work)
        state = self._begun()
        progress = work.progress
        progress.verified_rows = 0
        progress.verified_share, progress.verify_eta_seconds = 0.0, None
        try:
            verifier = self.verifier(state.units)
            self._read(verifier, state)
            for _ in range(_REPAIRS if repairing else 0):
                if not self._repaired(verifier):
                    break
            self._finish()
        except NotNow as undecided:
            if not isinstance(undecided, Retryable):
                verification.leave_undecided(work.state, work.job.id, work.names)
                work.tell("verification undecided", why=undecided.message)
            raise
        finally:
            progress.verified_share = progress.verify_eta_seconds = None

    def settle(self) -> None:
        """Judge every suspect. Raises NotNow where one can not be."""
        work, judge = self._work, self.judge
        failpoint("verify.settling")
        for _ in range(_ROUNDS):
            work.control.checkpoint()
            apply_all(work)
            if not judge.waiting:
                break
            judge.judge(work.fence)
        for _ in range(_EXACT_ROUNDS):
            if not judge.waiting:
                break
            work.control.checkpoint()
            apply_all(work)
            work.ready_applier().apply_exactly(work.fence, judge.judge_exactly)
        if waiting := judge.waiting:
            raise NotNow(
                f"{waiting} keys could not be compared: their changes do not settle",
                hint="A transaction that has committed waits for a standby, or a TRUNCATE does. Try again later.",
            )
        self.suspects.settle_ranges(work.state, work.job.id, work.names)

    def conclude(self) -> None:
        """After a look at some ranges: whether what was equal still is. Raises VerifyMismatch if not."""
        if self.suspects.count(self._work.state, sure=True):
            self._finish()

    def _begun(self) -> Verification:
        work = self._work
        state = self.state()
        if state is not None and state.state == "running" and self.suspects.there(work.state):
            self.suspects.clear(work.state)  # their ranges are read again
            return state
        seed = random.randrange(1 << 31)
        work.control.long_statement(work.state, lambda: self._begin(seed))
        work.ready_applier().before = self._mark
        failpoint("verify.begun")
        begun = self.state()
        assert begun is not None
        work.tell("verifying", mode=begun.mode, seed=begun.seed, ranges=begun.units)
        return begun

    def _begin(self, seed: int) -> None:
        work = self._work
        mode = "sample" if work.plan.verify.mode == "sample" else "full"
        with work.state.transaction():
            with told("the tables that a verification needs cannot be made"):
                self.suspects.create(
                    work.state,
                    [_typed(key.source_base, key.source_collation) for key in self._facts.key],
                    [_typed(key.target_base, key.target_collation) for key in self._facts.key],
                )
            units = self._bounds(seed)
            verification.begin(
                work.state, work.job.id, work.names, mode=mode, seed=seed, units=units
            )

    def _bounds(self, seed: int) -> int:
        """Choose the bounds; how many units they make."""
        work = self._work
        row = work.state.execute(
            "SELECT coalesce(sum(pg_relation_size(r) / current_setting('block_size')::bigint), 0)::bigint"
            " FROM unnest(%s::oid[]) AS r",
            ([leaf.oid for leaf in work.source.leaves],),
        ).fetchone()
        blocks = int(row[0]) if row else 0
        units = min(blocks // _BLOCKS_PER_UNIT, _MOST_PAGES // _PAGES_PER_BOUND)
        if units < 2:
            return 1
        words = {
            "percent": min(100.0, 100 * units * _PAGES_PER_BOUND / blocks),
            "seed": seed,
            "step": _PAGES_PER_BOUND,
        }
        return 1 + work.state.execute(self.comparison.sample_bounds(), words).rowcount

    def _read(self, verifier: Verifier, state: Verification) -> None:
        """Compare all that is wanted; again where so much differed that it may be a backlog."""
        work = self._work
        if state.mode == "sample":
            wanted = sample(state.units, work.plan.verify.share, state.seed)
        else:
            wanted = [Stretch(0, state.units)]
        todo = verification.missing(work.state, work.job.id, work.names, wanted)
        self._at_least = False
        for number in range(_PASSES):
            insist = number == _PASSES - 1
            self._compare(verifier.errands(todo, work.plan.verify.workers, insist=insist), verifier)
            self.settle()
            failpoint("verify.settled")
            todo = verifier.overflowed
            if not todo:
                break
            until_few_pending(work)
        self._at_least = bool(todo)
        if state.mode == "full":
            self._find_extra()

    def _compare(self, errands: list[Callable[[], None]], verifier: Verifier) -> None:
        """The workers read; this thread applies meanwhile, which it alone does."""
        work = self._work

        def follow() -> None:
            try:
                while verifier.busy:
                    work.control.checkpoint()
                    if not apply_pending(work):
                        work.breathe()
            except BaseException:
                verifier.give_up()
                raise

        work.crew.run_all([*errands, follow])

    def _find_extra(self) -> None:
        """What a comparison by the source's keys cannot see."""
        work = self._work
        with work.connect("verify 1") as session:
            extras = Extras(self._digest, self.suspects, session, work.control)
            extras.find_keyless()
            if not self.comparison.ordered:
                for leaf in work.made_shadow().leaves:
                    extras.find(leaf)
        self.settle()

    def _repaired(self, verifier: Verifier) -> bool:
        """Repair what is known to differ, and read its ranges again; whether there was something."""
        work = self._work
        if not self.suspects.count(work.state, sure=True):
            return False
        blamed = self.suspects.blamed_ranges(work.state, work.job.id, work.names)
        count = repair(self._session, self._digest, self.suspects)
        failpoint("verify.marked")
        work.tell("repaired", keys=count)
        self.settle()
        todo = [Stretch(*found) for found in blamed]
        self._compare(verifier.errands(todo, work.plan.verify.workers, insist=True), verifier)
        self.settle()
        self._at_least = bool(verifier.overflowed)
        return True

    def _finish(self) -> None:
        work = self._work
        differing = self.suspects.count(work.state, sure=True)
        keys = self.suspects.listed(work.state, SHOWN_KEYS)
        verification.end(
            work.state,
            work.job.id,
            work.names,
            differing=differing,
            at_least=self._at_least,
            keys=keys,
        )
        work.progress.verify_mismatches = differing
        if differing:
            work.tell("verify failed", keys=differing, at_least=self._at_least)
            found = self.state()
            assert found is not None
            raise verification.mismatch(work.job.name, found)
        quarantined = work.spool.quarantined(work.state)
        rows = verified.rows(work.state, work.job.id, work.names)
        work.tell("verified", rows=rows, quarantined=quarantined)


def _typed(type_sql: str, collation: str | None) -> sql.Composed:
    """For a column of ours. Statements that are run without parameters take percent signs as they are."""
    typed = sql.Composed([sql.SQL(type_sql)])
    return (
        typed if collation is None else sql.SQL("{} COLLATE {}").format(typed, sql.SQL(collation))
    )
