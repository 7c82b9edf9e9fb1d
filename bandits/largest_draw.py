"""Probability matching: draws an arm with the probability that its posterior draw is the largest of all.

Thompson sampling draws a value from each posterior and plays the largest.  Here the probabilities of that are computed
first, on a grid, and the arm is drawn from them with one uniform: the same law, as far as the grid is fine, and the
probability of the action is known, which no closed form gives.

A policy fills `LOW`, `HIGH` and `SCALE` of the arms in play and lists these arms; `below(state, a, x)` is the
distribution function of arm a's posterior.
"""

import math
from collections.abc import Callable

from offramp.bandits.kernel import kernel, whole
from offramp.bandits.pulls import BARE, CHOSEN, PARAMETERS, PULLS, coldest, offered, play
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import ARMS, own, uniform

Below = Callable[[FloatArray, int, float], float]
Describe = Callable[[FloatArray, FloatArray, int], None]

# Scratch columns, and the first one left to the policy: interval beyond which the distribution function is taken to be
# 0 or 1, standard deviation, distribution function at the last node and at this one, chance, arms still open.
LOW, HIGH, SCALE, LAST, THIS, CHANCE, LISTED, FREE_COLUMN = range(BARE, BARE + 8)
UP, DOWN = 5.5, 4.5  # standard deviations that count: nothing wins below the highest low end but for 3e-6 in all
STEP = 0.5  # between nodes, in standard deviations of the sharpest posterior that is still open
LEAST = 1e-12  # between nodes, for posteriors that are sharper than numbers


@kernel
def chances(below: Below, state: FloatArray, count: int) -> float:
    """Fill in the chance of each of the first `count` listed arms; returns their sum, about 1.

    The chance of an arm is the sum over cells of its own mass times the product of the others' mean distribution
    functions; the cells widen as sharp posteriors are left behind.  Where prices are so large that a cell is lost in
    their rounding, what is left is given up: the sum may be 0 then.
    """
    low, high, scale = own(state, PARAMETERS, LOW), own(state, PARAMETERS, HIGH), own(state, PARAMETERS, SCALE)
    last, this = own(state, PARAMETERS, LAST), own(state, PARAMETERS, THIS)
    chance, listed = own(state, PARAMETERS, CHANCE), own(state, PARAMETERS, LISTED)
    x, finest, kept, total = -math.inf, math.inf, 0, 0.0
    for i in range(count):
        x = max(x, state[low + whole(state[listed + i])])
    for i in range(count):
        a = whole(state[listed + i])
        if state[high + a] >= x:
            finest = min(finest, state[scale + a])
            state[last + a] = below(state, a, x)
            state[listed + kept] = a
            kept += 1
    while kept > 0 and x + max(STEP * finest, LEAST) > x:
        x += max(STEP * finest, LEAST)
        product, finest, still = 1.0, math.inf, 0
        for i in range(kept):
            a = whole(state[listed + i])
            state[this + a] = below(state, a, x) if x < state[high + a] else 1.0
            product *= 0.5 * (state[last + a] + state[this + a])
        for i in range(kept):
            a = whole(state[listed + i])
            now, before = state[this + a], state[last + a]
            if now > before:
                won = 2.0 * (now - before) / (now + before) * product
                state[chance + a] += won
                total += won
            if now < 1.0:
                state[last + a] = now
                state[listed + still] = a
                finest = min(finest, state[scale + a])
                still += 1
        kept = still
    return total


@kernel
def surest(state: FloatArray, count: int) -> int:
    """Of the first `count` listed arms the one whose interval begins highest, the lowest of equals."""
    low, listed = own(state, PARAMETERS, LOW), own(state, PARAMETERS, LISTED)
    best = whole(state[listed])
    for i in range(1, count):
        if state[low + whole(state[listed + i])] > state[low + best]:
            best = whole(state[listed + i])
    return best


@kernel
def match(describe: Describe, below: Below, state: FloatArray, row: FloatArray) -> None:
    """Choose by probability matching among the offered arms, after each of them was tried once.

    `describe(state, row, a)` fills in what the policy keeps of an arm's posterior, and the three columns.
    """
    arms, pulls = whole(state[ARMS]), own(state, PARAMETERS, PULLS)
    chance, listed = own(state, PARAMETERS, CHANCE), own(state, PARAMETERS, LISTED)
    cold, count = coldest(state, row, own(state, PARAMETERS, CHOSEN), pulls), 0
    if cold < 0:
        for a in range(arms):
            state[chance + a] = 0.0
            if offered(state, row, a):
                describe(state, row, a)
                state[listed + count] = a
                count += 1
    if count == 0:
        play(state, row, max(cold, 0), 1.0)
    else:
        first = surest(state, count)
        total = chances(below, state, count)
        if not (total > 0.0 and total < math.inf):  # numbers too large to tell the arms apart in more than this
            state[chance + first] = total = 1.0
        left = uniform(state) * total
        chosen = -1
        for a in range(arms):
            if state[chance + a] > 0.0 and (chosen < 0 or left >= 0.0):
                chosen = a
                left -= state[chance + a]
        play(state, row, chosen, min(state[chance + chosen] / total, 1.0))
