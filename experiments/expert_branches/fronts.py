"""Cost-accuracy fronts on one stream, and what one system gains on another at equal cost."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits import Policy
from offramp.bandits.costs import PriceList
from offramp.bandits.loop import World as Arrays
from offramp.bandits.rows import FloatArray
from offramp.environments import Abrupt, Trace, World, rollout
from offramp.environments.regret import prices as arm_prices
from offramp.experiments.results import interval

Settings = tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Front:
    """What a policy gets and pays at each of M settings with each of R seeds in each of G segments.

    Attributes
    ----------
    settings
        Values of mu, or names of rules, (M,).
    accuracy, cost, offloads, reward
        Means over the rounds of a segment, (M, R, G): share of right answers, cost units, share, and confidence of the
        answer minus mu times cost.

    """

    settings: Settings
    accuracy: FloatArray
    cost: FloatArray
    offloads: FloatArray
    reward: FloatArray

    def take(self, pick: Callable[[FloatArray], FloatArray], settings: Settings) -> "Front":
        """The front with each of its arrays passed through a function."""
        return Front(
            settings=settings,
            accuracy=pick(self.accuracy),
            cost=pick(self.cost),
            offloads=pick(self.offloads),
            reward=pick(self.reward),
        )

    def over(self, segments: npt.NDArray[Any]) -> "Front":
        """The means over some of the segments, which are of equal length; G becomes 1."""
        return self.take(lambda x: x[:, :, segments].mean(axis=2, keepdims=True), self.settings)


def together(fronts: Sequence[Front]) -> Front:
    """All settings of several fronts as one."""
    return Front(
        settings=tuple(s for front in fronts for s in front.settings),
        accuracy=np.concatenate([f.accuracy for f in fronts]),
        cost=np.concatenate([f.cost for f in fronts]),
        offloads=np.concatenate([f.offloads for f in fronts]),
        reward=np.concatenate([f.reward for f in fronts]),
    )


def by_segment(trace: Trace, ends: npt.NDArray[np.int64]) -> FloatArray:
    """Accuracy, cost, offloads and reward, means over the rounds of each segment, (4, G)."""
    kept = np.searchsorted(trace.rounds, ends)
    sums = np.stack([trace.sums["correct"], trace.cost, trace.sums["offloads"], trace.sums["reward"]])[:, kept]
    means: FloatArray = np.diff(sums, axis=1, prepend=0.0) / np.diff(ends, prepend=0)
    return means


def play(
    settings: Mapping[str, tuple[Policy, Arrays]],
    world: World,
    stream: Abrupt,
    *,
    horizon: int,
    seeds: Sequence[int],
    pool: ThreadPoolExecutor,
    played: Callable[[], None],
) -> Front:
    """Play each setting, a policy among facts, with each seed; `played` is called after each run."""
    ends = segment_ends(stream, horizon)

    def one(policy: Policy, arrays: Arrays, seed: int) -> FloatArray:
        trace, _ = rollout(policy, world, stream, horizon=horizon, seed=seed, arrays=arrays)
        played()
        return by_segment(trace, ends)

    jobs = [[pool.submit(one, *setting, seed) for seed in seeds] for setting in settings.values()]
    found = np.array([[job.result() for job in row] for row in jobs])
    accuracy, cost, offloads, reward = np.moveaxis(found, 2, 0)
    return Front(settings=tuple(settings), accuracy=accuracy, cost=cost, offloads=offloads, reward=reward)


def segment_ends(stream: Abrupt, horizon: int) -> npt.NDArray[np.int64]:
    """Rounds after which each segment of the stream ends, (G,)."""
    count = len(stream.segments)
    ends: npt.NDArray[np.int64] = horizon * np.arange(1, count + 1) // count
    return ends


def at_price(arrays: Arrays, world: World, prices: PriceList, links: Sequence[float]) -> Arrays:
    """The same facts under another price list.  The pseudo-regret stays that of the old one: it is not read here."""
    return arrays._replace(quotes=replace(world, prices=prices).quotes(links))


def repriced(rules: Front, world: World, prices: PriceList, link: float) -> Front:
    """Fixed rules under another price list: the same answers, each paid for at its cut and where it was sent.

    Parameters
    ----------
    rules
        A front whose settings are the world's arms, in their order.
    world, prices, link
        Whose arms; what is paid; the one state of the link.

    """
    quotes = replace(world, prices=prices).quotes([link])
    edge, offload = (x[0][:, None, None] for x in arm_prices(quotes, world.arms)[1:])
    with np.errstate(invalid="ignore"):
        sent = np.where(rules.offloads > 0.0, rules.offloads * offload, 0.0)
    cost: FloatArray = edge + sent
    return replace(rules, cost=cost)


def held(rules: Front, mu: Sequence[float]) -> Front:
    """The rule with the largest reward over the whole stream at each mu and with each seed, chosen in hindsight.

    Parameters
    ----------
    rules
        Every rule held throughout, at mu = 0: its reward is the confidence of the answer.
    mu
        (M,).

    """
    value = rules.reward.mean(axis=2) - np.array(mu)[:, None, None] * rules.cost.mean(axis=2)  # (M, rules, R)
    best = value.argmax(axis=1)
    seeds = np.arange(best.shape[1])
    front = rules.take(lambda x: x[best, seeds], tuple(f"{m:g}" for m in mu))
    return replace(front, reward=front.reward - np.array(mu)[:, None, None] * front.cost)


def mixture(cost: FloatArray, accuracy: FloatArray, at: FloatArray) -> FloatArray:
    """Weights (P, M) of the settings whose mix is the most accurate at a mean cost of at most each of `at` (P,).

    A mix of two settings can be played, and who may spend more need not: this is the upper concave envelope of the
    points (cost, accuracy), (M,) each, that never falls.
    """
    weights = np.zeros((len(at), len(cost)))
    for row, limit in zip(weights, at, strict=True):
        below, above = np.flatnonzero(cost <= limit), np.flatnonzero(cost > limit)
        if len(below) == 0:
            raise ValueError(f"cost is {limit}, allowed is {cost.min()} or more: the cheapest setting")
        best = below[accuracy[below].argmax()]
        if len(above) == 0 or accuracy[above].max() <= accuracy[best]:
            row[best] = 1.0
            continue
        share = (limit - cost[below, None]) / (cost[None, above] - cost[below, None])
        mixed = (1.0 - share) * accuracy[below, None] + share * accuracy[None, above]
        i, j = np.unravel_index(mixed.argmax(), mixed.shape)
        row[below[i]], row[above[j]] = 1.0 - share[i, j], share[i, j]
    return weights


def gain(one: Front, other: Front, points: int) -> dict[str, Any]:
    """Points of accuracy that one front lies above another at equal mean cost, over the costs that both reach.

    Parameters
    ----------
    one, other
        Of one segment each (`Front.over`), with the same seeds.
    points
        Places at which they are compared, >= 2.

    Returns
    -------
    dict
        `costs`, the range (one cost, the cheapest of the dearer front, where they have none in common); `least` and
        `mean` over it, each with its paired 95 % interval over seeds (`mean`, `half`) in points, `least` with the
        `cost` where it is.

    """
    costs = [f.cost[:, :, 0].mean(axis=1) for f in (one, other)]
    low = max(c.min() for c in costs)
    high = max(low, min(c.max() for c in costs))  # where no cost is reached by both, the cheaper one may spend `low`
    at = np.linspace(low, high, points)
    curves = [
        mixture(c, f.accuracy[:, :, 0].mean(axis=1), at) @ f.accuracy[:, :, 0]
        for c, f in zip(costs, (one, other), strict=True)
    ]
    apart = 100.0 * (curves[0] - curves[1])
    worst = int(apart.mean(axis=1).argmin())
    return {
        "costs": [float(low), float(high)],
        "least": {"cost": float(at[worst]), **interval(apart[worst].tolist())},
        "mean": interval(apart.mean(axis=0).tolist()),
    }
