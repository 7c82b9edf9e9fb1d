"""Restart on change, around any policy: when a detector rings, what was learnt is given up."""

import math
from dataclasses import dataclass
from functools import lru_cache

from offramp.bandits.arms import Arms
from offramp.bandits.detectors import Detector, Push
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.loop import Select, Update
from offramp.bandits.nested import LENGTH, Wrapper, around, bare, count, enter, restart, start_of, wrappable
from offramp.bandits.nested import PARAMETERS as OWN
from offramp.bandits.policy import Forget, Kernels, Policy
from offramp.bandits.rearm import renested
from offramp.bandits.reveal import answer_confidence, reward
from offramp.bandits.rows import CONFIDENCE, ROUND, FloatArray
from offramp.bandits.state import FREE, MADE, T

KEEP, SIGNAL, SINCE, ALARMS = range(OWN, OWN + 4)
DETECTOR = OWN + 4  # the detector's numbers follow the parameters
SIGNALS = ("first_exit", "answer", "reward")
FIRST_EXIT, ANSWER, REWARD = range(3)


@kernel
def heard(signal: float, decision: FloatArray, observation: FloatArray) -> float:
    """What the detector is told; nan = nothing."""
    if signal == FIRST_EXIT:
        return observation[CONFIDENCE]  # type: ignore[no-any-return]
    if signal == ANSWER:
        return answer_confidence(observation)
    return reward(decision, observation)


@lru_cache
def kernels_of(select: Select, update: Update, forget: Forget, push: Push) -> Kernels:
    """The kernels around an inner policy's; the same ones give the same back, and are compiled once in a process."""

    @kernel
    def select_restarting(state: FloatArray, row: FloatArray) -> None:
        at = start_of(state, 0)
        inner = state[at : at + whole(state[whole(state[FREE]) + LENGTH])]
        enter(state, inner)
        select(inner, row)
        count(state)

    @kernel
    def update_restarting(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
        free, at = whole(state[FREE]), start_of(state, 0)
        if decision[ROUND] < state[free + SINCE]:
            return
        inner = state[at : at + whole(state[free + LENGTH])]
        x = heard(state[free + SIGNAL], decision, observation)
        if x > -math.inf and x < math.inf and push(state, free + DETECTOR, x) > 0.0:
            state[free + ALARMS] += 1.0
            state[free + SINCE] = state[MADE]
            if state[free + KEEP] > 0.0:
                forget(inner, state[free + KEEP])
            else:
                restart(state, at, start_of(state, 1))
            state[T] = inner[T]
        update(inner, decision, observation)

    @kernel
    def forget_restarting(state: FloatArray, factor: float) -> None:
        at = start_of(state, 0)
        state[T] *= factor
        forget(state[at : at + whole(state[whole(state[FREE]) + LENGTH])], factor)

    return Kernels.of(select_restarting, update_restarting, forget_restarting)


def alarms(state: FloatArray) -> int:
    """How often the detector of a `Restarting` state has rung."""
    return int(state[whole(state[FREE]) + ALARMS])


@dataclass(frozen=True, kw_only=True)
class Restarting(Wrapper):
    """Any policy, begun anew when its signal changes.

    Parameters
    ----------
    policy
        Whom it is put around.
    detector
        Who listens: `CUSUM`, `PageHinkley`, `ADWIN`, `GLR`, `TwoWindow`, or any `offramp.bandits.detectors.Detector`.
    signal
        What it listens to.  "first_exit": the confidence of exit 1, which every decision with a cut >= 1 shows in a
        world that evaluates the heads on the way, whatever it then does: a change of it is one of the world.  While the
        input itself is sent (cut 0) it is silent.
        "answer": the confidence of the answer; "reward": that less the price.  Both change with the arm and with the
        link as well, so that a learner that still makes up its mind can ring the bell itself.
    keep
        Share of the weight of what was learnt that an alarm leaves, in [0, 1).  0 = none: the inner policy's first
        state.  A small share lets new observations outweigh old means at once, and keeps those where none come.

    Examples
    --------
    >>> from offramp.bandits import UCB1, Arms, Engine
    >>> from offramp.bandits.adwin import ADWIN
    >>> from offramp.bandits.restarting import Restarting, alarms
    >>> engine = Engine(Restarting(policy=UCB1(), detector=ADWIN()), arms=Arms.grid(exits=3), seed=0)
    >>> alarms(engine.state())
    0

    Notes
    -----
    Where distortion moves all exits at once, one detector on a stream that costs nothing needs no forced exploration
    (ADR-bandit, arXiv 2107.11419).  Drift of deeper exits alone is silent at exit 1.

    Observations of decisions that were made before an alarm and come back after it are dropped, by detector and policy
    alike: nobody knows on which side of the change they belong.  With long delays that is as many rounds of learning.
    The observation that rings is the first one learnt anew.  Where a floor or a budget is the inner policy, `keep = 0`
    sends that back to its start too.

    """

    policy: Policy
    detector: Detector
    signal: str = "first_exit"
    keep: float = 0.02

    def __post_init__(self) -> None:
        wrappable(self.policy)
        if not isinstance(self.detector, Detector):
            raise ValueError(f"detector is {self.detector!r}, allowed is a change detector")
        if self.signal not in SIGNALS:
            raise ValueError(f"signal is {self.signal!r}, allowed are {SIGNALS}")
        if not 0.0 <= self.keep < 1.0:
            raise ValueError(f"keep is {self.keep}, allowed is a number in [0, 1)")

    @property
    def kernels(self) -> Kernels:
        """Those of this file around the inner policy's and the detector's."""
        inner = self.policy.kernels
        return kernels_of(inner.select, inner.update, inner.forget, self.detector.push)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """The inner policy's first state behind the detector's numbers, and a copy of it if an alarm leaves nothing."""
        listening = self.detector.initial()
        state = around(
            bare(self.policy, arms, features),
            parameters=(self.keep, float(SIGNALS.index(self.signal)), 0.0, 0.0),
            extra=len(listening),
            copies=2 if self.keep == 0.0 else 1,
        )
        at = whole(state[FREE]) + DETECTOR
        state[at : at + len(listening)] = listening
        return state

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """Another table for the inner policy; see `offramp.bandits.rearm`."""
        return renested(self, self.policy, state, before, after, features)
