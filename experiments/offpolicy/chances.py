"""The logging policy's whole distribution at each decision, recomputed from its log; a log states one probability."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from offramp.bandits import EXP3, EXP3S, EpsilonGreedy, Exp3IX, RandomArm, exp3, exp3_ix, exp3_s, rows
from offramp.bandits.contract import Decision, Observation
from offramp.bandits.durable.fold import CHANGE, TAKE_OVER, Fold
from offramp.bandits.durable.follower import as_quoted
from offramp.bandits.durable.store import Entry
from offramp.bandits.epsilon_greedy import DECAY, EPSILON, index
from offramp.bandits.kernel import compiled, whole
from offramp.bandits.policy import Policy
from offramp.bandits.pulls import CHOSEN, PARAMETERS, PULLS, coldest, leader, offered, parameter
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import ARMS, CURSOR, FREE, T, own
from offramp.environments.rounds import rules_of

LATE = "decisions were made before earlier feedback came, or were never answered"
CLOSE = 1e-9  # relative: a recomputed probability is the stated one


@compiled
def greedy(state: FloatArray, row: FloatArray, chance: FloatArray) -> None:
    """Fill in the distribution of `EpsilonGreedy` before it selects, (K,)."""
    arms, count = whole(state[ARMS]), 0
    best = leader(index, state, row, 0.0)
    cold = coldest(state, row, own(state, PARAMETERS, CHOSEN), own(state, PARAMETERS, PULLS)) >= 0
    for a in range(arms):
        chance[a] = 0.0
        count += 1 if offered(state, row, a) else 0
    epsilon = min(1.0, max(parameter(state, EPSILON), parameter(state, DECAY) / (state[T] + 1.0)))
    if cold or count == 0:
        chance[best] = 1.0
    else:
        for a in range(arms):
            if offered(state, row, a):
                chance[a] = epsilon / count
        chance[best] += 1.0 - epsilon


def _greedy(policy: Policy, state: FloatArray, row: FloatArray) -> FloatArray:
    chance = np.empty(whole(state[ARMS]))
    greedy(state, row, chance)
    return chance


def _uniform(policy: Policy, state: FloatArray, row: FloatArray) -> FloatArray:
    return np.full(whole(state[ARMS]), 1.0 / state[ARMS])


def _column(parameters: int, column: int) -> Callable[[Policy, FloatArray, FloatArray], FloatArray]:
    """For a policy that leaves its distribution in a column of its state when it selects."""

    def found(policy: Policy, state: FloatArray, row: FloatArray) -> FloatArray:
        state[CURSOR] = 0.0  # which number it draws does not matter
        policy.kernels.decide(state, row)
        at = whole(state[FREE]) + parameters + column * whole(state[ARMS])
        return state[at : at + whole(state[ARMS])].copy()

    return found


RECOMPUTED: dict[type, Callable[[Policy, FloatArray, FloatArray], FloatArray]] = {
    RandomArm: _uniform,
    EpsilonGreedy: _greedy,
    EXP3: _column(exp3.PARAMETERS, exp3.CHANCE),
    EXP3S: _column(exp3_s.PARAMETERS, exp3_s.CHANCE),
    Exp3IX: _column(exp3_ix.PARAMETERS, exp3_ix.CHANCE),
}


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
    would have revealed the same, and that follows from the policy's state at the time of the decision, which is a fold
    over the log before it.  It is that state exactly where each piece of feedback came before the next decision, or the
    policy does not learn.  Otherwise decisions were made with less than the log held by then, and the log does not say
    with how much less.  So each stated probability is compared with the recomputed one: they must agree on all
    requests, since to go by request would let what was drawn decide how it counts.

    """

    chance: FloatArray | None
    rules: FloatArray | None
    why: str

    @classmethod
    def along(cls, fold: Fold, entries: Iterable[Entry], stream: str | None = None) -> "Recomputed":
        """Fold a log, and note the distribution before each piece of feedback."""
        policy, arms = fold.learner.policy, fold.learner.arms
        name = type(policy).__name__
        distribution = RECOMPUTED.get(type(policy))
        found: list[FloatArray] = []
        why = "" if distribution else f"the distribution of {name} cannot be recomputed here"
        table = arms.part(policy.plays(arms))[:, 0].astype(np.int64) if distribution else np.zeros(0, dtype=np.int64)
        place = {int(arm): k for k, arm in enumerate(table)}
        n = 0
        for entry in entries:
            if entry.kind is not None:
                if entry.kind in (CHANGE, TAKE_OVER) and not why:
                    why = f"the log has a {entry.kind!r}: what is drawn from is another thing before than after"
                fold.happen(entry.kind, entry.detail)
                continue
            mine = stream in (None, entry.stream)
            n += mine
            if mine and distribution and not why:
                row = entry.decision
                chance = distribution(policy, fold.learner.state(entry.stream), as_quoted(row, arms.exits))
                stated, k = row[rows.P_ACTION], place.get(int(row[rows.ARM]), -1)
                if k < 0 or abs(chance[k] - stated) > CLOSE * stated:
                    why = (
                        f"request {n} states a probability of {stated:.6g}, and {name} folded over the log so far "
                        f"gives {chance[k] if k >= 0 else 0.0:.6g}: {LATE}"
                    )
                found.append(chance)
            if not why:
                seen = Observation.__new__(Observation)
                seen.row = entry.observation
                fold.take(Decision(entry.decision, entry.number, entry.stream), seen, entry.generation)
        if why or not found:
            return cls(None, None, why or "the log holds no feedback")
        return cls(np.array(found), rules_of(arms)[table], "")
