"""Sliding-window UCB: UCB1 that knows of the latest decisions alone, exactly."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, fresh
from offramp.bandits.rearm import carry, places
from offramp.bandits.reveal import answer_confidence, reveal_answer
from offramp.bandits.rows import COSTS, EXITS, MU, OFFLOADED, PLAY, ROUND, FloatArray
from offramp.bandits.state import ARMS, FREE, HEADER, T, choose, own, pack
from offramp.bandits.ucb1 import UCB1

PARAMETERS, COLUMNS = 4, 7
BETA, WINDOW, NEXT, HELD = range(PARAMETERS)
CHOSEN, PULLS, SUM, SENT, MEAN, SHARE, ROOT = range(COLUMNS)
RING = 4  # the ring's columns, of length WINDOW: round and arm of a decision, and what came back (-1 = nothing yet)
MADE_AT, ARM_OF, VALUE, OFFLOAD = range(RING)
GRAIN = 2.0**32  # sums are whole multiples of 1 / GRAIN, hence exact, in whatever order things come and go
LARGEST = 2**20


@kernel
def weigh(state: FloatArray, a: int, n: float, value: float, sent: float) -> None:
    """Add an observation to an arm's sums (n = 1), or take it out again (n = -1)."""
    pulls = own(state, PARAMETERS, PULLS) + a
    total, offloads = own(state, PARAMETERS, SUM) + a, own(state, PARAMETERS, SENT) + a
    state[pulls] += n
    state[total] += n * value
    state[offloads] += n * sent
    if state[pulls] > 0.0:
        state[own(state, PARAMETERS, MEAN) + a] = state[total] / state[pulls]
        state[own(state, PARAMETERS, SHARE) + a] = state[offloads] / state[pulls]
        state[own(state, PARAMETERS, ROOT) + a] = 1.0 / math.sqrt(state[pulls])


@kernel
def drop(state: FloatArray, slot: int) -> None:
    """Let a decision fall out of the window."""
    window, ring = whole(state[whole(state[FREE]) + WINDOW]), own(state, PARAMETERS, COLUMNS)
    a, value = whole(state[ring + ARM_OF * window + slot]), state[ring + VALUE * window + slot]
    state[own(state, PARAMETERS, CHOSEN) + a] -= 1.0
    if value >= 0.0:
        weigh(state, a, -1.0, value, state[ring + OFFLOAD * window + slot])


@kernel
def slot_of(state: FloatArray, made_at: float) -> int:
    """Where in the ring the decision of a round stands; -1 where it has fallen out."""
    free, ring = whole(state[FREE]), own(state, PARAMETERS, COLUMNS)
    window, held = whole(state[free + WINDOW]), whole(state[free + HELD])
    start = whole(state[free + NEXT]) + window - held
    low, high = 0, held
    if held > 0 and state[ring + (start + held - 1) % window] == made_at:
        low = held - 1
    while low + 1 < high:  # rounds increase from the oldest to the latest
        middle = (low + high) // 2
        if state[ring + (start + middle) % window] <= made_at:
            low = middle
        else:
            high = middle
    slot = (start + low) % window
    return slot if held > 0 and state[ring + slot] == made_at else -1


@kernel
def largest(state: FloatArray, row: FloatArray) -> int:
    """An offered arm that was not played in the window, the lowest first; else the largest index, ties likewise.

    An arm whose feedback is still out waits, unless nothing is known of any arm: then the one played least often.
    """
    arms, exits, mu, free = whole(state[ARMS]), whole(row[EXITS]), row[MU], whole(state[FREE])
    chosen, pulls = own(state, PARAMETERS, CHOSEN), own(state, PARAMETERS, PULLS)
    mean, share, root = own(state, PARAMETERS, MEAN), own(state, PARAMETERS, SHARE), own(state, PARAMETERS, ROOT)
    width = state[free + BETA] * math.sqrt(math.log(max(min(state[T], state[free + WINDOW]), 1.0)))
    highest, best, rarest = -math.inf, -1, 0
    for a in range(arms):
        cut = whole(state[HEADER + arms + a])
        offload = row[COSTS + exits + 1 + cut]
        if state[pulls + a] > 0.0:
            price = row[COSTS + cut]
            if state[share + a] > 0.0:
                price += state[share + a] * offload
            index = state[mean + a] + width * state[root + a]
            index -= mu * price if price < math.inf else math.inf
            if index > highest:
                highest = index
                best = a
        elif state[chosen + a] == 0.0 and (offload < math.inf or state[HEADER + 2 * arms + a] == -math.inf):
            return a
        if state[chosen + a] < state[chosen + rarest]:
            rarest = a
    return best if best >= 0 else rarest


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Decide, and put the decision in the place of the one that falls out of the window."""
    best = whole(largest(state, row))
    choose(state, row, best, 1.0)
    free, ring = whole(state[FREE]), own(state, PARAMETERS, COLUMNS)
    window, slot = whole(state[free + WINDOW]), whole(state[free + NEXT])
    if state[free + HELD] == window:
        drop(state, slot)
    else:
        state[free + HELD] += 1.0
    state[ring + slot] = row[ROUND]
    state[ring + ARM_OF * window + slot] = best
    state[ring + VALUE * window + slot] = -1.0
    state[free + NEXT] = slot + 1.0 if slot + 1 < window else 0.0
    state[own(state, PARAMETERS, CHOSEN) + best] += 1.0


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Learn from a decision that is still in the window, in its place there.

    Another arm stands in that place where the decision was made elsewhere, on another copy of the state: it gives way.
    """
    slot = slot_of(state, decision[ROUND])
    ring, window = own(state, PARAMETERS, COLUMNS), whole(state[whole(state[FREE]) + WINDOW])
    if slot >= 0 and state[ring + VALUE * window + slot] < 0.0:
        chosen, stood = own(state, PARAMETERS, CHOSEN), whole(state[ring + ARM_OF * window + slot])
        state[chosen + stood] -= 1.0
        state[chosen + whole(decision[PLAY])] += 1.0
        state[ring + ARM_OF * window + slot] = decision[PLAY]
        value = math.floor(answer_confidence(observation) * GRAIN + 0.5) / GRAIN
        state[ring + VALUE * window + slot] = value
        state[ring + OFFLOAD * window + slot] = observation[OFFLOADED]
        weigh(state, whole(decision[PLAY]), 1.0, value, observation[OFFLOADED])


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Let the oldest decisions fall out, until a share of them is left."""
    free = whole(state[FREE])
    window, held = whole(state[free + WINDOW]), whole(state[free + HELD])
    start = whole(state[free + NEXT]) + window - held
    kept = whole(math.ceil(held * factor))
    state[T] *= factor
    for i in range(held - kept):
        drop(state, (start + i) % window)
    state[free + HELD] = kept


@dataclass(frozen=True, kw_only=True)
class SlidingWindowUCB:
    r"""SW-UCB over (cut, threshold) arms: the price is known, the confidence is learnt from the latest decisions.

    Plays an arm that was not played in the last :math:`\tau` decisions, else the arm with the largest

    .. math:: \hat C_a - \mu (\gamma_a + \hat p_a o_a) + \beta \sqrt{\ln \min(t, \tau) / N_a},

    where mean confidence :math:`\hat C_a`, share of offloads :math:`\hat p_a` and number of observations :math:`N_a`
    are those of the last :math:`\tau` decisions; :math:`\gamma_a, o_a` are the quoted costs of its cut.

    Parameters
    ----------
    window
        :math:`\tau` in decisions, more than there are arms, <= 2^20; the state holds four numbers for each.
    beta
        Width of the bonus, in units of confidence, >= 0.  :math:`B \sqrt\xi` in the paper, with :math:`\xi > 1/2` and B
        the range of the rewards.
    cuts, thresholds
        What to play, as in `UCB1`; None = all in the table.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Quote
    >>> from offramp.bandits.sliding_window_ucb import SlidingWindowUCB
    >>> engine = Engine(SlidingWindowUCB(window=100, thresholds=(0.8,)), arms=Arms.grid(exits=2), seed=0)
    >>> engine.decide(Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)).threshold
    0.8

    Notes
    -----
    Garivier, Moulines (ALT 2011), section 3, with regret of order :math:`\sqrt{Y T \ln T}` at
    :math:`\tau = 2 B \sqrt{T \ln T / Y}` for Y changes.  There the reward is observed whole; here the price is
    subtracted as quoted.  So every arm is played at least once in a window: with many arms a short window does little
    else.  An arm that cannot be sent from (an offload cost of +inf) is left out of that, unless it never sends.

    The window counts decisions.  What comes back late takes its place there, or is dropped where its decision has
    fallen out.  Only decisions of its own stand in the window.  Confidences are rounded to :math:`2^{-32}`, so that
    sums are exact after any number of rounds.  To forget is to shorten the window once; it then fills up again.

    """

    window: int = 2_000
    beta: float = 1.0
    cuts: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.window, int) or not 2 <= self.window <= LARGEST:
            raise ValueError(f"window is {self.window}, allowed is a whole number in 2..{LARGEST}")
        inner = UCB1(beta=self.beta, cuts=self.cuts, thresholds=self.thresholds)
        object.__setattr__(self, "cuts", inner.cuts)
        object.__setattr__(self, "thresholds", inner.thresholds)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """As `UCB1`."""
        return UCB1(cuts=self.cuts, thresholds=self.thresholds).plays(arms)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """An empty window.

        Raises
        ------
        ValueError
            The window is no longer than each arm once.

        """
        table = arms.part(self.plays(arms))
        if self.window <= len(table):
            raise ValueError(f"window is {self.window}, allowed is more than the {len(table)} arms that are played")
        return pack(
            table=table,
            exits=arms.exits,
            features=features,
            draws=0,
            parameters=(self.beta, float(self.window), 0.0, 0.0),
            columns=COLUMNS,
            extra=RING * self.window,
        )

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """What was learnt about the arms that stay; the window loses the others; see `offramp.bandits.rearm`."""
        new = fresh(self, after, features)
        carry(self, state, fresh(self, before, features), new)
        place = {play: there for (_, play), there in places(state, new).items()}
        free, ring, n = whole(state[FREE]), own(state, PARAMETERS, COLUMNS), self.window
        start = whole(state[free + NEXT]) + n - whole(state[free + HELD])
        order = [(start + i) % n for i in range(whole(state[free + HELD]))]
        kept = [slot for slot in order if place[state[ring + ARM_OF * n + slot]] is not None]
        ours = state[ring : ring + RING * n].reshape(RING, n)[:, kept]
        ours[ARM_OF] = [place[play][1] for play in ours[ARM_OF]]  # type: ignore[index]
        at = own(new, PARAMETERS, COLUMNS)
        new[at : at + RING * n] = 0.0
        new[at : at + RING * n].reshape(RING, n)[:, : len(kept)] = ours
        new[whole(new[FREE]) + HELD] = len(kept)
        new[whole(new[FREE]) + NEXT] = len(kept) % n
        return new


@compiled
def rollout(state: FloatArray, world: World, block: Block, record: Record) -> int:
    """Play a block of rounds."""
    return loop(select, update, reveal_answer, state, world, block, record)


@compiled
def decide(state: FloatArray, row: FloatArray) -> int:
    """One checked decision."""
    return guarded_select(select, state, row)


@compiled
def learn(state: FloatArray, decision: FloatArray, observation: FloatArray) -> int:
    """One checked update."""
    return guarded_update(update, state, decision, observation)


@compiled
def step(state: FloatArray, decision: FloatArray, observation: FloatArray, row: FloatArray) -> int:
    """One checked update, then one checked decision."""
    return guarded_step(select, update, state, decision, observation, row)


KERNELS = Kernels(select, update, forget, rollout, decide, learn, step)
