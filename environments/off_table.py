"""What rules outside the table of arms are worth: their population means, added to the regret of a record."""

import math

import numpy as np

from offramp.bandits.arms import Arms
from offramp.bandits.kernel import compiled
from offramp.bandits.loop import FIELDS, REGRET, Record, World
from offramp.bandits.reveal import FALLBACK, fall_back, reveal_answer, reward
from offramp.bandits.rows import ARM, CONFIDENCE, CUT, FloatArray, IntArray, thresholds_at
from offramp.environments.regret import best_arms


@compiled
def worth(truth: FloatArray, row: FloatArray, options: IntArray, seen: FloatArray) -> float:
    """Mean reward of the rule in a decision row over all samples of a condition, (N, L); audits are not part of it."""
    total = 0.0
    for n in range(truth.shape[0]):
        reveal_answer(truth[n], truth[n], row, options, seen)
        if options[FALLBACK] == 1:
            fall_back(truth[n], row, options, seen)
        total += reward(row, seen)
    return total / truth.shape[0]  # type: ignore[no-any-return]


class OffTable:
    """Adds the regret of rules outside the table of arms to a record, while a run goes on.

    A rule's gap is the expected reward of the best arm of the table under the same (condition, price), see
    `offramp.environments.regret.gaps`, minus its own: a rule of a richer class may be better than every arm, and its
    regret negative.  A policy that plays arms of the table as well gets no regret (nan).

    Parameters
    ----------
    world, arms
        The world's arrays and the table of arms.

    """

    def __init__(self, world: World, arms: Arms) -> None:
        self._world = world
        self._arms = arms
        self._yardstick = best_arms(world.gap, arms)
        self._best: dict[tuple[int, int], float] = {}
        self._gap: dict[tuple[int, int, bytes], float] = {}
        self._last: FloatArray | None = None
        self._total = 0.0
        self._kept = 0
        self._played = np.zeros(arms.exits + 1)
        self.cuts: list[FloatArray] = []  # (L + 1,) at each checkpoint: rounds of such rules by their cut

    def gap(self, condition: int, price: int, rule: FloatArray) -> float:
        """Gap of one rule, (cut, thresholds)."""
        key = condition, price, rule.tobytes()
        if key not in self._gap:
            self._gap[key] = self._best_of(condition, price) - self._worth(condition, price, rule)
        return self._gap[key]

    def add(self, record: Record, condition: IntArray, price: IntArray) -> None:
        """Value the rounds that a record has just noted, and make room for more.

        Parameters
        ----------
        record
            The record; the gaps go into the regret at the checkpoints that it has kept since the last call.
        condition, price
            Of the rounds since the last call, (n,).

        """
        noted = int(record.rules[0, 0])
        rules = record.rules[1 : noted + 1].copy()
        record.rules[0, 0] = 0.0
        end = int(record.at[0])
        start = end - len(condition)
        if self._last is not None:
            rules = np.concatenate([[np.concatenate([[start], self._last])], rules])
        if len(rules):
            # Arms of the table in between would be taken for the last rule: better no regret than a wrong one.
            gaps = np.full(len(condition), math.nan if record.totals[len(FIELDS) :].any() else 0.0)
            bounds = np.append(rules[:, 0], end).astype(np.int64)
            gaps[bounds[0] - start :] += self._over(condition, price, rules[:, 1:], bounds - start)
            self._last = rules[-1, 1:]
            sums = np.cumsum(np.concatenate([[self._total], gaps]))  # one by one, however often it is called
            fresh = slice(self._kept, int(record.at[1]))
            at = record.checkpoints[fresh]
            record.kept[fresh, REGRET] += sums[np.maximum(at - start, 0)]
            played = self._played + self._by_cut(bounds, rules[:, 1].astype(np.int64), np.append(at, end))
            self.cuts += list(played[:-1])
            self._total, self._played = float(sums[-1]), played[-1]
        self.cuts += [self._played] * (int(record.at[1]) - len(self.cuts))
        self._kept = int(record.at[1])

    def _by_cut(self, bounds: IntArray, cuts: IntArray, at: IntArray) -> FloatArray:
        """Rounds by cut until each of these, (K, L + 1), of rules that are played from each bound to the next."""
        before = np.zeros((len(bounds), self._arms.exits + 1))
        before[np.arange(1, len(bounds)), cuts] = np.diff(bounds)
        before = before.cumsum(axis=0)
        now = np.clip(np.searchsorted(bounds, at, side="right") - 1, 0, len(cuts) - 1)
        counted: FloatArray = before[now]
        counted[np.arange(len(at)), cuts[now]] += np.maximum(at - bounds[now], 0)
        return counted

    def _over(self, condition: IntArray, price: IntArray, rules: FloatArray, bounds: IntArray) -> FloatArray:
        """Gaps of rules, (R, L + 1), that are played from each bound, (R + 1,), to the next; from the first one on."""
        prices = len(self._world.quotes)
        places = len(self._world.confidence) * prices
        rule = np.repeat(np.arange(len(rules)), np.diff(bounds))
        code = rule * places + condition[bounds[0] :] * prices + price[bounds[0] :]
        codes, back = np.unique(code, return_inverse=True)
        found = np.zeros(len(codes))
        for i, one in enumerate(codes.tolist()):
            at, place = divmod(one, places)
            found[i] = self.gap(place // prices, place % prices, rules[at])
        gaps: FloatArray = found[back]
        return gaps

    def _best_of(self, condition: int, price: int) -> float:
        key = condition, price
        if key not in self._best:
            arm = self._arms[int(self._yardstick[condition, price])]
            rule = np.full(self._arms.exits + 1, np.inf)
            rule[0] = arm.cut
            rule[1 : len(arm.early) + 1] = arm.early
            if arm.cut > 0:
                rule[arm.cut] = arm.threshold
            self._best[key] = self._worth(condition, price, rule)
        return self._best[key]

    def _worth(self, condition: int, price: int, rule: FloatArray) -> float:
        world = self._world
        exits = self._arms.exits
        row = world.quotes[price].copy()
        row[ARM], row[CUT] = -1.0, rule[0]
        row[thresholds_at(exits) : thresholds_at(exits) + exits] = rule[1:]
        seen = np.concatenate([np.zeros(CONFIDENCE), np.full(exits, np.nan), np.full(exits, -1.0)])
        mean = float(worth(world.confidence[condition], row, world.options, seen))
        return mean if not math.isnan(mean) else -math.inf  # an offload that is not offered, where mu is 0
