"""What an arm is worth: population means for the pseudo-regret, and the comparators on the very same samples."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from offramp.bandits import rows
from offramp.bandits.arms import Arm, Arms
from offramp.bandits.loop import Block, World
from offramp.bandits.reveal import FALLBACK, PREFIX
from offramp.bandits.rows import FloatArray, IntArray

PLAIN = np.array([1, 0, 0, 0], dtype=np.int64)  # heads up to the cut are evaluated, and nothing special


def stops(truth: FloatArray, arm: Arm) -> IntArray:
    """Exit up to which the edge computes for each sample: the first that is sure enough, else the cut; (...,).

    Parameters
    ----------
    truth
        (..., L).
    arm
        Any; one without early thresholds always goes to its cut.

    """
    at = np.full(truth.shape[:-1], arm.cut)
    for k in range(len(arm.early), 0, -1):
        at[truth[..., k - 1] >= arm.early[k - 1]] = k
    return at


def served(truth: FloatArray, arm: Arm, options: IntArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Confidence of the answer that an arm leads to for each sample, and whether it was offloaded.

    Parameters
    ----------
    truth
        (..., L).
    arm
        A cut and a threshold, or a cascade.
    options
        The world's, see `offramp.bandits.reveal`.

    """
    final = truth[..., -1]
    if arm.cut == 0:
        return final, np.ones(final.shape, dtype=bool)
    own = truth[..., arm.cut - 1]
    sent = own < arm.threshold
    heads = [*(k for k, early in enumerate(arm.early) if early < np.inf), arm.cut - 1]
    if arm.early:
        at = stops(truth, arm)
        own = np.take_along_axis(truth, at[..., None] - 1, axis=-1)[..., 0]
        sent &= at == arm.cut
    cloud = final
    if options[FALLBACK] == 1 and arm.threshold < np.inf:
        edge = truth[..., : arm.cut].max(axis=-1) if options[PREFIX] == 1 else truth[..., heads].max(axis=-1)
        cloud = np.where(final < arm.threshold, np.maximum(final, edge), final)
    return np.where(sent, cloud, own), sent


def outcomes(confidence: FloatArray, arms: Arms, options: IntArray = PLAIN) -> tuple[FloatArray, FloatArray]:
    """Mean confidence of the answer, and share of offloads, of each arm under each condition; (S, A) each.

    Parameters
    ----------
    confidence
        (S, N, L).
    arms
        The table, A arms.
    options
        The world's, see `offramp.bandits.reveal`.

    """
    answered = np.empty((confidence.shape[0], len(arms)))
    offloaded = np.empty_like(answered)
    for a, arm in enumerate(arms.table):
        answer, sent = served(confidence, arm, options)
        answered[:, a] = answer.mean(axis=1)
        offloaded[:, a] = sent.mean(axis=1)
    return answered, offloaded


def prices(quotes: FloatArray, arms: Arms) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of each quote (P, W): mu (P, 1), and for each arm the edge and offload cost of its cut, (P, A) each."""
    exits = arms.exits
    cuts = np.array([arm.cut for arm in arms.table])
    return (
        quotes[:, rows.MU, None],
        quotes[:, rows.COSTS + cuts],
        quotes[:, rows.offload_cost_at(exits) + cuts],
    )


def _computed(confidence: FloatArray, quotes: FloatArray, arms: Arms, edge: FloatArray) -> FloatArray:
    """Expected edge cost of each arm, (S, P, A); as quoted for its cut, (P, A), where no arm is a cascade."""
    if len(arms.single) == len(arms):
        return edge
    cost = np.repeat(edge[None], len(confidence), axis=0)
    for a, arm in enumerate(arms.table):
        if arm.early:
            at = stops(confidence, arm)
            share = np.stack([(at == k).mean(axis=1) for k in range(1, arm.cut + 1)], axis=1)
            cost[:, :, a] = share @ quotes[:, rows.COSTS + 1 : rows.COSTS + arm.cut + 1].T
    return cost


def values(confidence: FloatArray, quotes: FloatArray, arms: Arms, options: IntArray = PLAIN) -> FloatArray:
    """Expected reward of each arm under each (condition, price), (S, P, A)."""
    answered, offloaded = (x[:, None, :] for x in outcomes(confidence, arms, options))
    mu, edge, offload = prices(quotes, arms)
    edge = _computed(confidence, quotes, arms, edge)
    with np.errstate(invalid="ignore"):
        sent = np.where(offloaded > 0.0, offloaded * offload, 0.0)
    value: FloatArray = answered - _priced(mu, edge + sent)
    return value


def _priced(mu: FloatArray, cost: FloatArray) -> FloatArray:
    """Reward lost for a cost; a cut that is not offered stays infinitely dear where mu is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(cost), np.inf, mu * cost)


def gaps(confidence: FloatArray, quotes: FloatArray, arms: Arms, options: IntArray = PLAIN) -> FloatArray:
    """Pseudo-regret of each arm under each (condition, price) against the best arm that is no cascade, (S, P, A).

    That comparator is the same with and without cascades in the table, so that a cascade may have a negative regret.
    In a table of cascades alone it is the best of them.
    """
    value = values(confidence, quotes, arms, options)
    return np.ascontiguousarray(value[..., _yardsticks(arms)].max(axis=2, keepdims=True) - value)


def best_arms(gap: FloatArray, arms: Arms) -> IntArray:
    """The arm that pseudo-regret is measured against under each (condition, price), as an index into the table, (S, P).

    Parameters
    ----------
    gap
        As `gaps` gives them, (S, P, A).
    arms
        The table, A arms.

    """
    among = _yardsticks(arms)
    best: IntArray = among[gap[..., among].argmin(axis=2)]
    return best


def _yardsticks(arms: Arms) -> IntArray:
    single = [a for a, arm in enumerate(arms.table) if not arm.early]
    return np.array(single or range(len(arms)))


def bin_values(confidence: FloatArray, quotes: FloatArray, exits: int, bins: int = 20) -> FloatArray:
    """Expected reward of the best rule per confidence bin under each (condition, price), (S, P).

    A richer class than the arms: at each cut every bin of confidence answers or offloads as is better there.  No
    policy here plays it; it shows what thresholds leave on the table.  It knows no fallback: a bin has no target.

    Parameters
    ----------
    confidence, quotes
        (S, N, L) and (P, W).
    exits, bins
        L; bins of equal width on [0, 1].

    """
    conditions, samples, _ = confidence.shape
    mu, at = quotes[:, rows.MU], rows.offload_cost_at(exits)
    final = confidence[..., -1].mean(axis=1)[:, None]
    whole = final - mu * quotes[:, rows.COSTS + exits]
    value: FloatArray = np.maximum(whole, final - _priced(mu, quotes[:, rows.COSTS] + quotes[:, at]))
    for cut in range(1, exits):
        place = np.minimum((confidence[..., cut - 1] * bins).astype(np.int64), bins - 1)
        place += bins * np.arange(conditions)[:, None]
        share, own, cloud = (
            np.bincount(place.ravel(), w, bins * conditions).reshape(conditions, 1, bins) / samples
            for w in (None, confidence[..., cut - 1].ravel(), confidence[..., -1].ravel())
        )
        sent = -_priced(mu, quotes[:, at + cut])[None, :, None]
        with np.errstate(invalid="ignore"):
            offload = np.where(share > 0.0, cloud + share * sent, 0.0)
        rule = np.maximum(own, offload).sum(axis=2) - mu * quotes[:, rows.COSTS + cut]
        value = np.maximum(value, rule)
    return value


class Comparators:
    """Cumulative rewards of whom a policy is measured against in the same rounds, at the same checkpoints.

    Parameters
    ----------
    world, arms
        The world's arrays and the table of arms.
    blocks
        The stream.
    checkpoints
        Rounds after which the sums are kept, increasing, (R,).

    Attributes
    ----------
    dynamic
        Realised reward of the best arm of each (condition, price) that is no cascade, (R,).
    static
        Expected reward of each arm, played throughout, (R, A): the best of the last row is the best arm in hindsight,
        which may be a cascade.
    binned
        Expected reward of the best rule per confidence bin of each (condition, price), (R,): a richer class.
    clairvoyant
        Reward of the best arm of each single sample, (R,).  A bound that nobody can reach, never a yardstick.

    """

    def __init__(self, world: World, arms: Arms, blocks: Iterable[Block], checkpoints: IntArray) -> None:
        value = values(world.confidence, world.quotes, arms, world.options)
        best = best_arms(-value, arms)
        rule = bin_values(world.confidence, world.quotes, arms.exits)[..., None]
        shape = (len(checkpoints), len(arms))
        self.dynamic, self.clairvoyant, self.static = np.zeros(shape[0]), np.zeros(shape[0]), np.zeros(shape)
        self.binned, of_rule = np.zeros(shape[0]), 0.0
        of_the_best, of_all, of_each = 0.0, 0.0, np.zeros(len(arms))
        played, kept = 0, 0
        for block in blocks:
            reward = realised(world, arms, block)
            of_best = reward[np.arange(len(reward)), best[block.condition, block.price]]
            while kept < shape[0] and checkpoints[kept] <= played + len(reward):
                n = checkpoints[kept] - played
                self.dynamic[kept] = of_the_best + of_best[:n].sum()
                self.clairvoyant[kept] = of_all + reward[:n].max(axis=1).sum()
                self.static[kept] = of_each + _static(value, block, n)
                self.binned[kept] = of_rule + float(_static(rule, block, n)[0])
                kept += 1
            played += len(reward)
            of_the_best += of_best.sum()
            of_all += reward.max(axis=1).sum()
            of_each += _static(value, block, len(reward))
            of_rule += float(_static(rule, block, len(reward))[0])


def _static(value: FloatArray, block: Block, n: int) -> FloatArray:
    conditions, links, _ = value.shape
    visits = np.bincount(block.condition[:n] * links + block.price[:n], minlength=conditions * links)
    came = visits > 0  # an arm may be worth -inf where a stream never goes
    total: FloatArray = visits[came] @ value.reshape(conditions * links, -1)[came]
    return total


def realised(world: World, arms: Arms, block: Block) -> FloatArray:
    """Reward of every arm in every round of a block, (n, A)."""
    truth = world.confidence[block.condition, block.sample]
    mu, edge, offload = (x[block.price] for x in prices(world.quotes, arms))
    reward = np.empty((len(truth), len(arms)))
    for a, arm in enumerate(arms.table):
        answer, sent = served(truth, arm, world.options)
        spent = world.quotes[block.price, rows.COSTS + stops(truth, arm)] if arm.early else edge[:, a]
        reward[:, a] = answer - _priced(mu[:, 0], spent + np.where(sent, offload[:, a], 0.0))
    return reward
