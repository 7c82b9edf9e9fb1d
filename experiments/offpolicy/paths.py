"""Which confidences a rule needs, which ones another rule is sure to reveal, and what a rule's outcome was worth."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from offramp.bandits import rows
from offramp.bandits.arms import Arm, Arms
from offramp.bandits.durable.bounds import value_bounds
from offramp.bandits.kernel import compile_here
from offramp.bandits.rows import FloatArray
from offramp.environments.rounds import rules_of
from offramp.experiments.offpolicy.logs import BoolArray, Log

LARGEST = (
    1.0  # what an unknown confidence is taken for: the larger it is, the earlier a rule stops, and the less it shows
)


class Delivery(NamedTuple):
    """What the world reveals besides what it must: all heads up to where the edge computed, all deeper exits."""

    prefix: bool
    everything: bool

    @classmethod
    def of(cls, log: Log) -> "Delivery":
        """As the log shows it; what it never shows is not counted on.

        Raises
        ------
        ValueError
            Heads that must have been evaluated are not revealed.

        """
        exits = np.arange(1, log.exits + 1)
        known = ~np.isnan(log.confidence)
        sent = (log.observation[:, [rows.OFFLOADED]] + log.observation[:, [rows.AUDITED]]) > 0.0
        cut, rule = log.played[:, [0]], log.played[:, 1:]
        depth = np.where(sent, cut, log.observation[:, [rows.ANSWERED_AT]])
        must = (exits <= depth) & ((rule < np.inf) | (exits == depth))
        if (must & ~known).any():
            at = int(np.argmax((must & ~known).any(axis=1)))
            missing = int(np.argmax(must[at] & ~known[at])) + 1
            raise ValueError(
                f"request {at + 1} does not reveal exit {missing}, which its decision "
                "had evaluated: allowed are logs with the confidence of each exit that may answer"
            )
        on_the_way, deeper = exits <= depth, sent & (exits > cut)
        more, beyond = on_the_way & ~must, deeper & (exits < log.exits)
        return cls(
            bool(more.any() and known[on_the_way].all()),
            bool(beyond.any() and known[deeper].all()),
        )


class Paths(NamedTuple):
    """What one rule meets on many requests.

    `known` (n, L) holds the confidences that whoever reveals the outcome knows, nan elsewhere; `needed` (n, L) says
    which these are; `complete` (n,): does the log hold all of them?
    """

    known: FloatArray
    needed: BoolArray
    complete: BoolArray


def rule_of(arm: Arm, exits: int) -> FloatArray:
    """Cut and thresholds of an arm, (1 + L,)."""
    return rules_of(Arms(exits=exits, table=(arm,)))[0]


def paths(rule: FloatArray, confidence: FloatArray, delivery: Delivery) -> Paths:
    """The paths of a rule, (1 + L,), by what was revealed, (n, L)."""
    exits = confidence.shape[1]
    at, cut, threshold = np.arange(1, exits + 1), int(rule[0]), rule[1:]
    asks = (at <= cut) & (threshold < np.inf)
    with np.errstate(invalid="ignore"):
        ends = asks & ((confidence >= threshold) | np.isnan(confidence))
    stop = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, 0)[:, None]
    needed = asks & ((stop == 0) | (at <= stop))
    needed |= (stop == 0) & (at == exits)
    needed = _with_the_way(needed, delivery)
    complete = ~(needed & np.isnan(confidence)).any(axis=1)
    return Paths(np.where(needed, confidence, np.nan), needed, complete)


def hardest(rule: FloatArray, exits: int, delivery: Delivery) -> Paths:
    """Of each way in which a rule can end, the path that the fewest other rules reveal, (J, L).

    That is where every confidence is as large as it can be: each rule stops as early as it can.
    """
    at, cut, threshold = np.arange(1, exits + 1), int(rule[0]), rule[1:]
    known, needed = [], []
    below = np.where(threshold < np.inf, np.minimum(np.nextafter(threshold, -np.inf), LARGEST), LARGEST)
    for stop in (*np.flatnonzero((at <= cut) & (threshold <= LARGEST)) + 1, 0):
        passed = (at <= cut) & (threshold < np.inf) & ((at < stop) | (stop == 0))
        if (passed & (threshold <= 0.0)).any():
            break  # an exit that always answers
        needs = passed | (at == stop) | ((stop == 0) & (at == exits))
        needs = _with_the_way(needs[None], delivery)[0]
        known.append(np.where(needs, np.where(passed, below, LARGEST), np.nan))
        needed.append(needs)
    return Paths(np.array(known), np.array(needed), np.ones(len(known), dtype=bool))


def _with_the_way(needed: BoolArray, delivery: Delivery) -> BoolArray:
    """Where the heads on the way are revealed, whoever knows an exit before the last knows those before it."""
    if not delivery.prefix:
        return needed
    inner = needed.copy()
    inner[:, -1] = False
    deeper = np.flip(np.logical_or.accumulate(np.flip(inner, axis=1), axis=1), axis=1)
    found: BoolArray = needed | deeper
    return found


def reveals(
    rule: FloatArray, known: FloatArray, needed: BoolArray, delivery: Delivery, audited: bool | BoolArray
) -> BoolArray:
    """Is a rule sure to reveal what is needed, whatever the confidences that are not known?  Shapes are broadcast.

    Parameters
    ----------
    rule
        Cut and thresholds, (..., 1 + L).
    known, needed
        As in `Paths`, (..., L).
    delivery
        What the world reveals.
    audited
        Is the request offloaded in any case?  (...,)

    """
    exits = known.shape[-1]
    at, cut, threshold = np.arange(1, exits + 1), rule[..., :1], rule[..., 1:]
    answers = (np.where(np.isnan(known), LARGEST, known) >= threshold) & (at <= cut)
    stop = np.where(answers.any(axis=-1), answers.argmax(axis=-1) + 1, 0)[..., None]
    sent = (stop == 0) | (np.asarray(audited)[..., None] & (cut < exits))
    depth = np.where(sent, cut, stop)
    shown = (at <= depth) & (delivery.prefix | (threshold < np.inf) | (at == depth))
    shown |= sent & ((at == exits) | (delivery.everything & (at > cut)))
    found: BoolArray = ~(needed & ~shown).any(axis=-1)
    return found


_bounds = compile_here(value_bounds)


@compile_here
def _along(decision: FloatArray, observation: FloatArray, low: FloatArray, high: FloatArray) -> None:
    for t in range(decision.shape[0]):
        low[t], high[t] = _bounds(decision[t], observation[t])


def bounds(rule: FloatArray, log: Log) -> tuple[FloatArray, FloatArray]:
    """Least and largest reward of a rule on each request, (n,) each, see `value_bounds`; equal where it is known."""
    decision = log.decision.copy()
    at = rows.thresholds_at(log.exits)
    decision[:, rows.CUT] = rule[0]
    decision[:, at : at + log.exits] = rule[1:]
    low, high = np.empty(len(log)), np.empty(len(log))
    _along(decision, log.observation, low, high)
    return low, high


def stops(rule: FloatArray, confidence: FloatArray) -> npt.NDArray[np.int64]:
    """Exit at which a rule answers on the edge, 0 = it offloads; right where the path is complete, (n,)."""
    at = np.arange(1, confidence.shape[1] + 1)
    ends = (at <= rule[0]) & (confidence >= rule[1:])
    found: npt.NDArray[np.int64] = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, 0)
    return found
