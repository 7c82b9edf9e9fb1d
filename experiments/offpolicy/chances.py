"""The logging policy's whole distribution at each decision, recomputed from its log; a log states one probability."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offramp.bandits import rows
from offramp.bandits.durable.fold import CHANGE, TAKE_OVER, Fold
from offramp.bandits.durable.follower import as_quoted
from offramp.bandits.durable.store import Entry
from offramp.bandits.rows import FloatArray
from offramp.environments.rounds import rules_of
from offramp.experiments.offpolicy import makers
from offramp.experiments.offpolicy.distributions import DRAWS
from offramp.experiments.offpolicy.makers import CLOSE


@dataclass(frozen=True, eq=False)
class Recomputed:
    """Distributions along a log.

    Parameters
    ----------
    chance
        (n, K); None where they cannot be recomputed.
    rules
        (K, 1 + L) cut and thresholds of what is drawn from.
    why
        Why there are none.

    Notes
    -----
    A decision states the probability of the rule that was played.  What revelation needs is the probability of all that
    would have revealed the same, and that follows from the policy's state at the time of the decision.  Where each
    piece of feedback came before the next decision, or the policy does not learn, that is the fold over the log before
    it.  Else it is what the decider knew, which `offramp.experiments.offpolicy.makers` recomputes from the cursors of
    the log.  Either way each stated probability is compared with the recomputed one: they must agree on all requests,
    since to go by request would let what was drawn decide how it counts.

    """

    chance: FloatArray | None
    rules: FloatArray | None
    why: str

    @classmethod
    def along(cls, fold: Fold, entries: Sequence[Entry], stream: str | None = None) -> "Recomputed":
        """Distributions of the feedback of a stream (None = of all), in the order of `makers.in_order`."""
        policy, arms = fold.learner.policy, fold.learner.arms
        name = type(policy).__name__
        if type(policy) not in DRAWS:
            return cls(None, None, f"the distribution of {name} cannot be recomputed here")
        for entry in entries:
            if entry.kind in (CHANGE, TAKE_OVER):
                why = f"the log has a {entry.kind!r}: what is drawn from is another thing before than after"
                return cls(None, None, why)
        raw = fold.packed()
        found, missed = _at_once(fold, entries, stream)
        if missed:
            found, why = makers.along(raw, entries, stream, fold.known)
            if why:
                return cls(None, None, f"{missed}; as late feedback, or that of several deciders, {why}")
        wanted = [e for e in entries if e.kind is None and stream in (None, e.stream)]
        if not wanted:
            return cls(None, None, "the log holds no feedback")
        chance = np.array([found[e.seq] for e in makers.in_order(wanted)])
        return cls(chance, rules_of(arms)[arms.part(policy.plays(arms))[:, 0].astype(np.int64)], "")


def _at_once(fold: Fold, entries: Sequence[Entry], stream: str | None) -> tuple[dict[int, FloatArray], str]:
    """Distributions by place in the log if each decision knew all lines before its own, and where that is not so."""
    policy, exits = fold.learner.policy, fold.learner.arms.exits
    found: dict[int, FloatArray] = {}
    for entry in entries:
        if entry.kind is None and stream in (None, entry.stream):
            row = entry.decision
            chance = DRAWS[type(policy)].chance(policy, fold.learner.state(entry.stream), as_quoted(row, exits))
            k, stated = int(row[rows.PLAY]), row[rows.P_ACTION]
            if abs(chance[k] - stated) > CLOSE * stated:
                return {}, (
                    f"request {len(found) + 1} states a probability of {stated:.6g}, and {type(policy).__name__} "
                    f"folded over the log so far gives {chance[k]:.6g}"
                )
            found[entry.seq] = chance
        fold.apply(entry)
    return found, ""
