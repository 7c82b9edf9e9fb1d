"""What a budget costs: use round by round, and the best arm, or mixture of two, that keeps a ceiling in hindsight."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.budget import Budget
from offramp.bandits.loop import FIELDS, Block, Record
from offramp.bandits.loop import World as Arrays
from offramp.bandits.policy import Policy, fresh, needs_oracle
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import CURSOR, UNIFORMS, refill
from offramp.environments.regret import outcomes, prices, values
from offramp.environments.stream import Stream, blocks
from offramp.environments.trace import record
from offramp.environments.world import World

OF = ("cost", "offloads", "latency", "energy")


@dataclass(frozen=True, kw_only=True)
class WithinCeiling:
    """The best that keeps a ceiling on the mean, played throughout a stream; population means, per round.

    Parameters
    ----------
    arm
        The best single arm that keeps the ceiling, None where none does.
    reward, use
        What it earns and uses; nan where there is none.
    mixture
        Arms and shares of the best mixture that keeps the ceiling: two at most are enough.
    mixture_reward
        What that earns, >= reward; nan where even the cheapest arm uses more.

    """

    arm: Arm | None
    reward: float
    use: float
    mixture: tuple[tuple[Arm, float], ...]
    mixture_reward: float


def uses(
    arrays: Arrays, arms: Arms, of: str, *, edge_use: npt.ArrayLike = (), offload_use: npt.ArrayLike = ()
) -> FloatArray:
    """Expected use of each arm under each (condition, price), (S, P, A), by the names of `offramp.bandits.budget`.

    Parameters
    ----------
    arrays, arms
        The world's arrays and its table of arms.
    of
        "cost", "offloads", "latency" or "energy".
    edge_use, offload_use
        For the last two: of each cut, (L + 1,) each.

    Raises
    ------
    ValueError
        There is no such use.

    """
    if of not in OF:
        raise ValueError(f"of is {of!r}, allowed are {OF}")
    _, share = (x[:, None, :] for x in outcomes(arrays.confidence, arms, arrays.options))
    _, edge, offload = prices(arrays.quotes, arms)
    cuts = np.array([arm.cut for arm in arms.table])
    if of == "offloads":
        edge, offload = np.zeros_like(edge), np.broadcast_to((cuts < arms.exits).astype(float), edge.shape)
    elif of != "cost":
        listed = [np.asarray(x, dtype=np.float64) for x in (edge_use, offload_use)]
        if any(x.shape != (arms.exits + 1,) for x in listed):
            raise ValueError(f"edge_use and offload_use have shapes {[x.shape for x in listed]}, allowed is (L + 1,)")
        edge, offload = (np.broadcast_to(x[cuts], edge.shape) for x in listed)
    with np.errstate(invalid="ignore"):
        used: FloatArray = edge + np.where(share > 0.0, share * offload, 0.0)
    return used


def visited(arrays: Arrays, stream: Iterable[Block]) -> FloatArray:
    """How many rounds of a stream fall under each (condition, price), (S * P,)."""
    conditions, links = arrays.gap.shape[:2]
    visits = np.zeros(conditions * links)
    for block in stream:
        visits += np.bincount(block.condition * links + block.price, minlength=conditions * links)
    return visits


def budget_of(policy: Policy) -> Budget | None:
    """The outermost budget around a policy, if its uses are known beforehand; else None."""
    while not isinstance(policy, Budget):
        inner = getattr(policy, "policy", None)
        if not isinstance(inner, Policy):
            return None
        policy = inner
    return policy if policy.uses_at is None else None


def regret_allowed(arrays: Arrays, arms: Arms, stream: Iterable[Block], budget: Budget) -> float:
    """Dynamic regret, summed over a stream, of the best single arm that keeps a budget's ceiling; nan where none does.

    A policy's regret less this is its regret against that arm: below zero where pacing does better than any one arm.

    Parameters
    ----------
    arrays, arms
        The world's arrays and its table of arms.
    stream
        The rounds, as `blocks` lays them out.
    budget
        The wrapper, with its ceiling and what it is a ceiling of.

    """
    rounds = list(stream)
    listed = {"edge_use": budget.edge_use or (), "offload_use": budget.offload_use or ()}
    best = best_within(arrays, arms, rounds, budget.ceiling, uses(arrays, arms, budget.of, **listed))
    if best.arm is None:
        return np.nan
    visits, gap = visited(arrays, rounds), arrays.gap.reshape(-1, len(arms))[:, arms.table.index(best.arm)]
    return float(visits[visits > 0] @ gap[visits > 0])


def best_within(arrays: Arrays, arms: Arms, stream: Iterable[Block], ceiling: float, used: FloatArray) -> WithinCeiling:
    """The best arm, and the best mixture of arms, of those whose mean use over a stream keeps a ceiling.

    Parameters
    ----------
    arrays, arms
        The world's arrays and its table of arms.
    stream
        The rounds, as `blocks` lays them out.
    ceiling
        Largest mean use of a round.
    used
        From `uses`.

    Examples
    --------
    >>> from offramp.bandits import Arms, MacsAndBytes
    >>> from offramp.environments import Abrupt, ConfidenceCache, World, blocks
    >>> cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")
    >>> world = World(cache=cache, prices=MacsAndBytes(), arms=Arms.grid(exits=7))
    >>> stream = Abrupt(segments=(("pristine", 1.0), ("noise 20", 4.0)))
    >>> arrays = world.arrays(stream.conditions, stream.links)
    >>> rounds = blocks(stream, samples=len(cache.label), horizon=2_000, seed=0)
    >>> best = best_within(arrays, world.arms, rounds, 0.2, uses(arrays, world.arms, "offloads"))
    >>> best.use <= 0.2, best.reward <= best.mixture_reward, len(best.mixture) <= 2
    (True, True, True)

    """
    value = values(arrays.confidence, arrays.quotes, arms, arrays.options)
    n, visits = value.shape[-1], visited(arrays, stream)
    came = visits > 0  # an arm may be worth -inf where a stream never goes
    share = visits[came] / visits.sum()
    worth, spent = (share @ x.reshape(-1, n)[came] for x in (value, used))
    can = np.isfinite(worth) & np.isfinite(spent)
    keeps = np.flatnonzero(can & (spent <= ceiling))
    breaks = np.flatnonzero(can & (spent > ceiling))
    if not len(keeps):
        return WithinCeiling(arm=None, reward=np.nan, use=np.nan, mixture=(), mixture_reward=np.nan)
    best = int(keeps[worth[keeps].argmax()])
    earned = float(worth[best])
    mixture: tuple[tuple[Arm, float], ...] = ((arms[best], 1.0),)
    for i in keeps.tolist():
        if len(breaks):
            part = (ceiling - spent[i]) / (spent[breaks] - spent[i])
            mixed = (1.0 - part) * worth[i] + part * worth[breaks]
            j = int(mixed.argmax())
            if mixed[j] > earned:
                earned, p = float(mixed[j]), float(part[j])
                mixture = ((arms[i], 1.0 - p), (arms[int(breaks[j])], p))
    return WithinCeiling(
        arm=arms[best], reward=float(worth[best]), use=float(spent[best]), mixture=mixture, mixture_reward=earned
    )


def round_by_round(
    policy: Policy, world: World, stream: Stream, *, horizon: int, seed: int, arrays: Arrays | None = None
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Play a policy as `rollout` does, and keep what each single round added to the sums.

    Parameters
    ----------
    policy, world, stream, horizon, seed, arrays
        As for `rollout`.

    Returns
    -------
    tuple
        Of each field of a trace the value of every round, (horizon,) each; and the policy's last state.

    """
    if arrays is None:
        arrays = world.arrays(stream.conditions, stream.links, oracle=needs_oracle(policy))
    features = arrays.context.shape[2]
    state, rng = fresh(policy, world.arms, features), np.random.default_rng(seed)
    first = record(world.arms, horizon, features)
    kept = Record(
        totals=first.totals,
        checkpoints=np.arange(1, horizon + 1),
        kept=np.zeros((horizon, len(first.totals))),
        at=first.at,
        row=first.row,
        seen=first.seen,
    )
    state[CURSOR] = state[UNIFORMS]
    for block in blocks(stream, samples=len(arrays.label), horizon=horizon, seed=seed):
        done = 0
        while done < len(block.sample):
            done += policy.kernels.rollout(state, arrays, Block(*(part[done:] for part in block)), kept)
            if done < len(block.sample):
                refill(state, rng)
    each = np.diff(kept.kept[:, : len(FIELDS)], axis=0, prepend=0.0)
    return {name: each[:, f] for f, name in enumerate(FIELDS)}, state


def worst_window(values: FloatArray, rounds: int) -> float:
    """The largest mean of so many rounds in a row.

    Raises
    ------
    ValueError
        There are fewer rounds than that.

    Examples
    --------
    >>> import numpy as np
    >>> worst_window(np.array([0.0, 1.0, 1.0, 0.0]), 2)
    1.0

    """
    if not 1 <= rounds <= len(values):
        raise ValueError(f"rounds is {rounds}, allowed is 1..{len(values)}")
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return float((sums[rounds:] - sums[:-rounds]).max() / rounds)
