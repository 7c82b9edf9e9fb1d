"""One policy for each context: a bank of copies, of which the one that the context names decides and learns."""

import math
from dataclasses import dataclass
from functools import lru_cache

from offramp.bandits.arms import Arms
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.loop import Select, Update
from offramp.bandits.nested import LENGTH, Wrapper, around, bare, count, enter, follow, restart, start_of, wrappable
from offramp.bandits.nested import PARAMETERS as OWN
from offramp.bandits.policy import Forget, Kernels, Policy
from offramp.bandits.rearm import renested
from offramp.bandits.rows import EXITS, FloatArray, context_at
from offramp.bandits.state import FREE, T

CONTEXTS, FEATURE, LIKELIEST, PRIOR = range(OWN, OWN + 4)
MET = OWN + 4  # one number for each copy, after the parameters: 1 = it has decided


@kernel
def member(state: FloatArray, row: FloatArray) -> int:
    """Which copy a row's context names."""
    free = whole(state[FREE])
    contexts = whole(state[free + CONTEXTS])
    if state[free + FEATURE] < 0.0:
        return 0
    at = context_at(whole(row[EXITS])) + whole(state[free + FEATURE])
    if state[free + LIKELIEST] == 1.0:
        best = 0
        for i in range(contexts):
            if row[at + i] > row[at + best]:
                best = i
        return best
    value = row[at]
    if value >= 0.0 and value < contexts and value == math.floor(value):
        return whole(value)
    return contexts


@lru_cache
def kernels_of(select: Select, update: Update, forget: Forget) -> Kernels:
    """The kernels around an inner policy's; the same ones give the same back, and are compiled once in a process."""

    @kernel
    def select_in_context(state: FloatArray, row: FloatArray) -> None:
        free, k = whole(state[FREE]), member(state, row)
        n, prior = whole(state[free + LENGTH]), state[free + PRIOR]
        at, all_of_them = start_of(state, k), start_of(state, whole(state[free + CONTEXTS]) + 1)
        inner = state[at : at + n]
        if state[free + MET + k] == 0.0:
            state[free + MET + k] = 1.0
            if prior > 0.0:
                restart(state, at, all_of_them)
                if prior < 1.0:
                    forget(inner, prior)
        enter(state, inner)
        select(inner, row)
        count(state)
        if prior > 0.0:
            follow(state, state[all_of_them : all_of_them + n])

    @kernel
    def update_in_context(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
        free, k = whole(state[FREE]), member(state, decision)
        n = whole(state[free + LENGTH])
        for learner in range(2 if state[free + PRIOR] > 0.0 else 1):
            at = start_of(state, k if learner == 0 else whole(state[free + CONTEXTS]) + 1)
            update(state[at : at + n], decision, observation)

    @kernel
    def forget_in_context(state: FloatArray, factor: float) -> None:
        free = whole(state[FREE])
        n = whole(state[free + LENGTH])
        state[T] *= factor
        for k in range(whole(state[free + CONTEXTS]) + (2 if state[free + PRIOR] > 0.0 else 1)):
            at = start_of(state, k)
            forget(state[at : at + n], factor)

    return Kernels.of(select_in_context, update_in_context, forget_in_context)


@dataclass(frozen=True, kw_only=True)
class PerContext(Wrapper):
    """Any policy, once for each value of a context feature.

    Parameters
    ----------
    policy
        Whom it is put around.
    contexts
        How many contexts there are, >= 1.
    feature
        Which context feature names the context, 0..d - 1: a whole number in 0..contexts - 1, as the index of the expert
        is in a routed world.
    likeliest
        The context is the largest of the `contexts` features that begin at `feature` instead (the first of equals), as
        the probabilities of a router are.
    prior
        Share of the weight of what all contexts together have learnt that a context begins with when it is first met,
        in [0, 1].  0: each begins from nothing, and nothing is learnt in common.

    Examples
    --------
    >>> from offramp.bandits import UCB1, Arms, Engine, Quote
    >>> from offramp.bandits.per_context import PerContext
    >>> engine = Engine(PerContext(policy=UCB1(), contexts=2), arms=Arms.grid(exits=2), seed=0, features=1)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> [engine.decide(quote, [c]).arm for c in (0, 1, 0, 1, 0)]
    [0, 0, 1, 1, 2]

    Notes
    -----
    A value that names no context (a fraction, or one out of range) is no error, for it may come from a world that has
    grown: all such decisions share one further copy, so that they spoil none of the others.  An engine without context
    features plays one context.  The context travels in the decision: late feedback finds the copy that decided.

    With a prior, the copy that learns from all decisions has made none of them; see `SlidingWindow` for what that asks
    of a policy.

    """

    policy: Policy
    contexts: int
    feature: int = 0
    likeliest: bool = False
    prior: float = 0.0

    def __post_init__(self) -> None:
        wrappable(self.policy)
        for name, value, least in (("contexts", self.contexts, 1), ("feature", self.feature, 0)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value}, allowed is a whole number >= {least}")
        if not 0.0 <= self.prior <= 1.0:
            raise ValueError(f"prior is {self.prior}, allowed is a number in [0, 1]")

    @property
    def kernels(self) -> Kernels:
        """Those of this file around the inner policy's."""
        inner = self.policy.kernels
        return kernels_of(inner.select, inner.update, inner.forget)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """A copy for each context, one for what names none and, with a prior, one that learns from all.

        Raises
        ------
        ValueError
            The features that name the context are not among those that decisions bring.

        """
        needed = self.feature + (self.contexts if self.likeliest else 1)
        if 0 < features < needed:
            raise ValueError(f"features is {features}, allowed is 0, or {needed} and more: the context is named there")
        return around(
            bare(self.policy, arms, features),
            parameters=(float(self.contexts), float(self.feature if features else -1), self.likeliest, self.prior),
            extra=self.contexts + 1,
            copies=self.contexts + (2 if self.prior > 0.0 else 1),
        )

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """Another table for the inner policy; see `offramp.bandits.rearm`."""
        return renested(self, self.policy, state, before, after, features)
