"""Discounting, around any policy: what was learnt loses a constant share of its weight from decision to decision."""

from dataclasses import dataclass
from functools import lru_cache

from offramp.bandits.arms import Arms
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.loop import Select, Update
from offramp.bandits.nested import LENGTH, Wrapper, around, bare, count, enter, start_of, wrappable
from offramp.bandits.nested import PARAMETERS as OWN
from offramp.bandits.policy import Forget, Kernels, Policy
from offramp.bandits.rearm import renested
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import FREE, T

KEPT, EVERY, SINCE = range(OWN, OWN + 3)


@lru_cache
def kernels_of(select: Select, update: Update, forget: Forget) -> Kernels:
    """The kernels around an inner policy's; the same ones give the same back, and are compiled once in a process."""

    @kernel
    def select_discounted(state: FloatArray, row: FloatArray) -> None:
        free, at = whole(state[FREE]), start_of(state, 0)
        inner = state[at : at + whole(state[free + LENGTH])]
        enter(state, inner)
        select(inner, row)
        count(state)
        state[free + SINCE] += 1.0
        if state[free + SINCE] >= state[free + EVERY]:
            state[free + SINCE] = 0.0
            state[T] *= state[free + KEPT]
            forget(inner, state[free + KEPT])

    @kernel
    def update_discounted(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
        at = start_of(state, 0)
        update(state[at : at + whole(state[whole(state[FREE]) + LENGTH])], decision, observation)

    @kernel
    def forget_discounted(state: FloatArray, factor: float) -> None:
        at = start_of(state, 0)
        state[T] *= factor
        forget(state[at : at + whole(state[whole(state[FREE]) + LENGTH])], factor)

    return Kernels.of(select_discounted, update_discounted, forget_discounted)


@dataclass(frozen=True, kw_only=True)
class Discounted(Wrapper):
    r"""Any policy with a fading memory.

    After each decision the inner policy forgets: all its weights shrink to a share :math:`\gamma`.  At the next one an
    observation that came back at once weighs 1, the one before it :math:`\gamma`, then :math:`\gamma^2`; all of them
    together :math:`1 / (1 - \gamma)`.

    Parameters
    ----------
    policy
        Whom it is put around.
    discount
        :math:`\gamma`, in (0, 1].
    every
        Forget after every so many decisions only, then by :math:`\gamma` to that power, >= 1.  1 is exact; more is
        faster, with weights that are off by :math:`\gamma^{\pm(n-1)}` at most.

    Examples
    --------
    >>> from offramp.bandits import Arms, SplitEE
    >>> from offramp.bandits.discounted import Discounted
    >>> [arm.cut for arm in Discounted(policy=SplitEE(threshold=0.7), discount=0.999).plays(Arms.grid(exits=3))]
    [1, 2, 3]

    Notes
    -----
    Garivier, Moulines (ALT 2011), discounted UCB, in which the bonus counts fade as the means do; here through the
    inner policy's own `forget`, whose number of rounds fades alike.  What is late weighs as if it were new, for an
    inner policy knows no other way to learn.  `offramp.bandits.discounted_ucb.DiscountedUCB` weighs it by its age, is
    compiled to disk and takes a step whose time does not grow with the number of arms.

    """

    policy: Policy
    discount: float = 0.999
    every: int = 1

    def __post_init__(self) -> None:
        wrappable(self.policy)
        if not 0.0 < self.discount <= 1.0:
            raise ValueError(f"discount is {self.discount}, allowed is a number in (0, 1]")
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every is {self.every}, allowed is a whole number >= 1")

    @property
    def kernels(self) -> Kernels:
        """Those of this file around the inner policy's."""
        inner = self.policy.kernels
        return kernels_of(inner.select, inner.update, inner.forget)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """The inner policy's first state behind two constants."""
        parameters = (self.discount**self.every, float(self.every), 0.0)
        return around(bare(self.policy, arms, features), parameters=parameters)

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """Another table for the inner policy; see `offramp.bandits.rearm`."""
        return renested(self, self.policy, state, before, after, features)
