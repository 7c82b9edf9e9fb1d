"""A sliding window, around any policy: two copies, restarted in turn, of which the elder decides."""

from dataclasses import dataclass
from functools import lru_cache

from offramp.bandits.arms import Arms
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.loop import Select, Update
from offramp.bandits.nested import LENGTH, Wrapper, around, bare, count, enter, follow, restart, start_of, wrappable
from offramp.bandits.nested import PARAMETERS as OWN
from offramp.bandits.policy import Forget, Kernels, Policy
from offramp.bandits.rearm import renested
from offramp.bandits.rows import ROUND, FloatArray
from offramp.bandits.state import FREE, MADE, T

HALF, AGE, ELDER, NEXT, SINCE = range(OWN, OWN + 5)
NEVER = 2.0**53  # no decision has this number


@lru_cache
def kernels_of(select: Select, update: Update, forget: Forget) -> Kernels:
    """The kernels around an inner policy's; the same ones give the same back, and are compiled once in a process."""

    @kernel
    def select_windowed(state: FloatArray, row: FloatArray) -> None:
        free = whole(state[FREE])
        n = whole(state[free + LENGTH])
        if state[free + AGE] == state[free + HALF]:
            state[free + AGE] = 0.0
            again = whole(state[free + NEXT])
            restart(state, start_of(state, again), start_of(state, 2))
            state[free + SINCE + again] = state[MADE]
            state[free + ELDER] = state[free + NEXT] = 1.0 - again
            state[T] = state[start_of(state, 1 - again) + T]
        elder = whole(state[free + ELDER])
        at, other = start_of(state, elder), start_of(state, 1 - elder)
        inner = state[at : at + n]
        enter(state, inner)
        select(inner, row)
        count(state)
        follow(state, state[other : other + n])
        state[free + AGE] += 1.0

    @kernel
    def update_windowed(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
        free = whole(state[FREE])
        n = whole(state[free + LENGTH])
        for k in range(2):
            if decision[ROUND] >= state[free + SINCE + k]:
                at = start_of(state, k)
                update(state[at : at + n], decision, observation)

    @kernel
    def forget_windowed(state: FloatArray, factor: float) -> None:
        n = whole(state[whole(state[FREE]) + LENGTH])
        state[T] *= factor
        for k in range(2):
            at = start_of(state, k)
            forget(state[at : at + n], factor)

    return Kernels.of(select_windowed, update_windowed, forget_windowed)


@dataclass(frozen=True, kw_only=True)
class SlidingWindow(Wrapper):
    """Any policy that knows only of the latest decisions.

    An arbitrary policy cannot unlearn one observation.  So there are two copies, each restarted every `window`
    decisions, half a window apart.  Both learn from all that comes back, the elder decides: what it knows goes back
    between half a window and a whole one (less only in the very beginning).

    Parameters
    ----------
    policy
        Whom it is put around.
    window
        Decisions, even, >= 2.

    Examples
    --------
    >>> from offramp.bandits import UCB1
    >>> from offramp.bandits.sliding_window import SlidingWindow
    >>> SlidingWindow(policy=UCB1(), window=1001)
    Traceback (most recent call last):
    ...
    ValueError: window is 1001, allowed is an even number >= 2

    Notes
    -----
    Each copy learns of the decisions made since it was restarted, whoever made them; an observation that is later than
    that is dropped, as everything of its age has been.  The younger copy counts the elder's decisions without having
    made them: index policies, and those that weigh by the probability in the decision, learn from them as from their
    own; what a policy notes down for itself while it decides it does not have.

    `offramp.bandits.sliding_window_ucb.SlidingWindowUCB` has the exact window.

    """

    policy: Policy
    window: int = 2_000

    def __post_init__(self) -> None:
        wrappable(self.policy)
        if not isinstance(self.window, int) or self.window < 2 or self.window % 2:
            raise ValueError(f"window is {self.window}, allowed is an even number >= 2")

    @property
    def kernels(self) -> Kernels:
        """Those of this file around the inner policy's."""
        inner = self.policy.kernels
        return kernels_of(inner.select, inner.update, inner.forget)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Two copies, of which the first decides, and a third that stays as it is: what a restart goes back to."""
        parameters = (self.window / 2, 0.0, 0.0, 1.0, 0.0, NEVER)
        return around(bare(self.policy, arms, features), parameters=parameters, copies=3)

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """Another table for the inner policy; see `offramp.bandits.rearm`."""
        return renested(self, self.policy, state, before, after, features)
