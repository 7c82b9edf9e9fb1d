"""The chain of exits: what going on from an exit at some confidence is worth, learnt cell by cell and solved backwards.

A cell is an exit j < L together with a bin of its confidence.  For each one this file keeps, with weights that fade,

====================  ===========  ==================================================================
EDGES                 B            lower edges of the bins 1..B-1, then +inf
OPEN                  M            1 = this exit may answer on the way to a deeper cut
SIGHTS                B            weight of the requests by the bin of exit 1
SEEN, OWN             M x B        weight and mean of the exit's own confidence
KNOWN, CLOUD, SPREAD  M x B        weight, mean and variance of the last exit's confidence: as revealed, or as expected
                                   where a later exit answered
PASSED                M x B        weight of the requests of which the next exit was seen as well
MOVES                 M x B x B    the same by the bin at the next exit (rows) and at this one (columns)
HOPE                  M x B        scratch: an upper confidence bound on how sure the cloud is
VALUE, ON             B, B         scratch: value of a bin, and of going on from it
RULE                  L            scratch: thresholds of the cut that is being valued; cells of a request
====================  ===========  ==================================================================

with M = L - 1 exits before the last.  Given the bin at an exit, what comes next does not depend on whether the request
was to stop there: so selection by earlier answers, offloads and audits does not bias a cell (up to how the confidence
is spread within a bin, and to what earlier exits tell beyond this one).  Selection by later exits would: of requests
that went on, the cloud sees those that no later exit was sure of.  The others count as what the cloud is expected to
say from the exit that answered, 1 where nothing is known.
"""

import math

import numpy as np

from offramp.bandits.kernel import kernel, whole
from offramp.bandits.rows import COSTS, MU, FloatArray
from offramp.bandits.state import EXITS, FADED, FREE

# The first parameters of a policy that keeps a chain; its own follow from `CHAIN` on.
CHAIN = 7
BINS, WIDTH, HOPEFUL, ON_THE_WAY, WEIGHT, SCATTER, START = range(CHAIN)
FIELDS = 13
(EDGES, OPEN, SIGHTS, SEEN, OWN, KNOWN, CLOUD, SPREAD, PASSED, HOPE, VALUE, ON, RULE) = range(FIELDS)
NEVER = 2.0  # above every confidence: the head is evaluated, and never answers
SHRUNK = 4.0  # samples that the pooled variance counts for in the variance of a cell
EMPTY = 1e-3  # mass of a cell that nothing reached, so that a threshold does not ignore it
SMALL, SLOW = 0.02, 0.005  # pooled variance at first, and the step it moves by
CURVE = 1.5
DEAR = 1e9


def edges(bins: int) -> FloatArray:
    """Lower edges of the bins 1..B-1: finer towards 1, where confidences crowd."""
    left: FloatArray = 1.0 - (1.0 - np.arange(1, bins) / bins) ** CURVE
    return left


def size(exits: int, bins: int) -> int:
    """How many numbers a chain takes."""
    m = exits - 1
    return 4 * bins + m + exits + 7 * m * bins + m * bins * bins


@kernel
def field(state: FloatArray, name: int) -> int:
    """Where a field starts."""
    free = whole(state[FREE])
    bins, m, at = whole(state[free + BINS]), whole(state[EXITS]) - 1, whole(state[free + START])
    if name == EDGES:
        return at
    if name == SIGHTS:
        return at + bins
    if name == VALUE:
        return at + 2 * bins
    if name == ON:
        return at + 3 * bins
    if name == OPEN:
        return at + 4 * bins
    if name == RULE:
        return at + 4 * bins + m
    tables = at + 4 * bins + 2 * m + 1
    if name == HOPE:
        return tables + 6 * m * bins
    return tables + (name - SEEN) * m * bins


@kernel
def moves(state: FloatArray, exit_index: int) -> int:
    """Where the table of moves from an exit starts."""
    bins, m = whole(state[whole(state[FREE]) + BINS]), whole(state[EXITS]) - 1
    return field(state, HOPE) + m * bins + exit_index * bins * bins


def start(state: FloatArray, at: int, exits: int, open_exits: list[bool]) -> None:
    """Write the first state of a chain: nothing seen, a bin's own confidence in its middle."""
    free = whole(state[FREE])
    bins = whole(state[free + BINS])
    state[free + START], state[free + WEIGHT], state[free + SCATTER] = at, 1.0, SMALL
    lower = np.concatenate([[0.0], edges(bins), [1.0]])
    state[at : at + bins] = np.append(lower[1:-1], np.inf)
    state[field(state, OPEN) : field(state, OPEN) + exits - 1] = open_exits
    state[field(state, RULE) : field(state, RULE) + exits] = np.inf
    own = field(state, OWN)
    state[own : own + (exits - 1) * bins] = np.tile((lower[1:] + lower[:-1]) / 2.0, exits - 1)


@kernel
def bin_of(state: FloatArray, confidence: float) -> int:
    """The bin of a confidence, 0..B-1."""
    low, high = 0, whole(state[whole(state[FREE]) + BINS]) - 1
    at = field(state, EDGES)
    while low < high:
        middle = (low + high) // 2
        if confidence >= state[at + middle]:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def faded(weight: float, factor: float) -> float:
    """A share of a weight; never zero, which means "never seen"."""
    return max(weight * factor, FADED) if weight > 0.0 else 0.0


@kernel
def scale(state: FloatArray, factor: float, known_only: bool) -> None:
    """Multiply all weights, or those of what the cloud said alone."""
    free = whole(state[FREE])
    bins, m = whole(state[free + BINS]), whole(state[EXITS]) - 1
    known = field(state, KNOWN)
    for k in range(m * bins):
        state[known + k] = faded(state[known + k], factor)
    if known_only:
        return
    sights, seen, passed, moved = field(state, SIGHTS), field(state, SEEN), field(state, PASSED), moves(state, 0)
    for k in range(bins):
        state[sights + k] = faded(state[sights + k], factor)
    for k in range(m * bins):
        state[seen + k] = faded(state[seen + k], factor)
        state[passed + k] = faded(state[passed + k], factor)
    for k in range(m * bins * bins):
        state[moved + k] = faded(state[moved + k], factor)


@kernel
def age(state: FloatArray, growth: float) -> float:
    """Let everything known fade by one request, by making what comes weigh more; returns what to scale the rest by."""
    free = whole(state[FREE])
    weight = state[free + WEIGHT] * growth
    if weight < 1e9:
        state[free + WEIGHT] = weight
        return 1.0
    state[free + WEIGHT] = 1.0
    scale(state, 1.0 / weight, False)
    return 1.0 / weight  # type: ignore[no-any-return]


@kernel
def learn_request(state: FloatArray, confidence: FloatArray) -> None:
    """Learn from the confidences that one request revealed, (L,); nan = not revealed."""
    free = whole(state[FREE])
    bins, m, weight = whole(state[free + BINS]), whole(state[EXITS]) - 1, state[free + WEIGHT]
    seen, own, known = field(state, SEEN), field(state, OWN), field(state, KNOWN)
    cloud, spread, passed = field(state, CLOUD), field(state, SPREAD), field(state, PASSED)
    before, deepest, cells = -1, -1, field(state, RULE)
    for j in range(m):
        state[cells + j] = -1.0
        if confidence[j] >= 0.0:
            b = bin_of(state, confidence[j])
            cell = j * bins + b
            state[cells + j] = cell
            state[seen + cell] += weight
            state[own + cell] += weight / state[seen + cell] * (confidence[j] - state[own + cell])
            if j == 0:
                state[field(state, SIGHTS) + b] += weight
            elif before >= 0:
                state[passed + (j - 1) * bins + before] += weight
                state[moves(state, j - 1) + b * bins + before] += weight
            before, deepest = b, j
        else:
            before = -1
    if deepest < 0:
        return
    last, shown = confidence[m], deepest + 1
    if not last >= 0.0:  # answered there: for the exits before, the cloud would have said what it says from there
        at, shown = whole(state[cells + deepest]), deepest
        last = state[cloud + at] if state[known + at] > 0.0 else 1.0
    elif state[known + whole(state[cells + deepest])] > 0.0:
        gap = last - state[cloud + whole(state[cells + deepest])]
        state[free + SCATTER] += SLOW * (min(gap * gap, 0.25) - state[free + SCATTER])
    for j in range(shown):
        if state[cells + j] >= 0.0:
            cell = whole(state[cells + j])
            first = state[known + cell] == 0.0
            state[known + cell] += weight
            share = weight / state[known + cell]
            gap = last - state[cloud + cell]
            state[cloud + cell] += share * gap
            # A first sight says nothing about the variance; what lay in the cell before is forgotten with it.
            rest = gap * (last - state[cloud + cell]) - state[spread + cell]
            state[spread + cell] = 0.0 if first else state[spread + cell] + share * rest


@kernel
def surprise(state: FloatArray, confidence: FloatArray) -> float:
    """How far the last exit is from what was expected where the request was last seen; nan where nothing was."""
    bins, m = whole(state[whole(state[FREE]) + BINS]), whole(state[EXITS]) - 1
    deepest = -1
    for j in range(m):
        if confidence[j] >= 0.0:
            deepest = j
    if deepest < 0:
        return math.nan
    cell = whole(deepest) * bins + bin_of(state, confidence[whole(deepest)])
    return confidence[m] - state[field(state, CLOUD) + cell] if state[field(state, KNOWN) + cell] > 0.0 else math.nan


@kernel
def go_on(state: FloatArray, exit_index: int, step: float) -> None:
    """Value of computing one more segment from each bin of an exit: the mean value of where that leads, less its cost.

    A bin that was never left counts as leading to a sure answer, with a weight that its first requests outgrow.
    """
    free = whole(state[FREE])
    bins = whole(state[free + BINS])
    hopeful = state[free + HOPEFUL] * state[free + WEIGHT]
    table, at = moves(state, exit_index), field(state, PASSED) + exit_index * bins
    value, on = field(state, VALUE), field(state, ON)
    out, passed = state[on : on + bins], state[at : at + bins]
    for b in range(bins):
        out[b] = hopeful
    fours = whole(bins // 4)
    for i in range(fours):  # four rows at once, added in the order of the rows: a third of the time
        c = 4 * i
        w, x, y, z = state[value + c], state[value + c + 1], state[value + c + 2], state[value + c + 3]
        at = table + c * bins
        one, two = state[at : at + bins], state[at + bins : at + 2 * bins]
        three, four = state[at + 2 * bins : at + 3 * bins], state[at + 3 * bins : at + 4 * bins]
        for b in range(bins):
            out[b] = out[b] + one[b] * w + two[b] * x + three[b] * y + four[b] * z
    for c in range(4 * fours, bins):
        worth = state[value + c]
        came = state[table + c * bins : table + (c + 1) * bins]
        for b in range(bins):
            out[b] += came[b] * worth
    for b in range(bins):
        out[b] = out[b] / (passed[b] + hopeful) - step


@kernel
def hope(state: FloatArray) -> float:
    """Write the upper bounds on the cloud's answers from each cell; returns the weight of all requests seen."""
    free = whole(state[FREE])
    bins, m, weight = whole(state[free + BINS]), whole(state[EXITS]) - 1, state[free + WEIGHT]
    cells = m * bins
    at = field(state, SIGHTS)
    total = 0.0
    for b in range(bins):
        total += state[at + b]
    share = 1.0 / weight
    width = state[free + WIDTH] * math.sqrt(2.0 * math.log(max(total / weight, 2.0)))
    prior = SHRUNK * state[free + SCATTER]
    at = field(state, KNOWN)
    known = state[at : at + cells]
    at = field(state, CLOUD)
    cloud = state[at : at + cells]
    at = field(state, SPREAD)
    spread = state[at : at + cells]
    at = field(state, HOPE)
    upper = state[at : at + cells]
    for k in range(cells):
        n = known[k] * share
        safe = n if n > 0.0 else 1.0
        bound = cloud[k] + width * math.sqrt((safe * spread[k] + prior) / ((safe + SHRUNK) * safe))
        upper[k] = bound if n > 0.0 and bound < 1.0 else 1.0
    return total


@kernel
def lost(mu: float, price: float) -> float:
    """Reward lost for a price; far more than there is to gain where it is not offered, whatever mu."""
    return min(mu * price, DEAR) if price < math.inf else DEAR


@kernel
def stop_from(state: FloatArray, exit_index: int, may: bool) -> float:
    """Choose the bin from which an exit answers, and turn VALUE into that of arriving there; returns the threshold.

    Cells are added up from the surest downwards, by how often they are met, for as long as answering gains over ON.
    """
    free = whole(state[FREE])
    bins = whole(state[free + BINS])
    at = field(state, SEEN) + exit_index * bins
    seen = state[at : at + bins]
    at = field(state, OWN) + exit_index * bins
    own = state[at : at + bins]
    at = field(state, VALUE)
    value = state[at : at + bins]
    at = field(state, ON)
    on = state[at : at + bins]
    lowest, gain, most = bins, 0.0, 0.0
    if may:
        floor = EMPTY * state[free + WEIGHT]
        for i in range(bins):
            b = whole(bins - 1 - i)
            gain += (seen[b] + floor) * (own[b] - on[b])
            if gain > most:
                most = gain
                lowest = b
    for b in range(bins):
        value[b] = own[b] if b >= lowest else on[b]
    if lowest == bins:
        return math.inf
    return -math.inf if lowest == 0 else state[field(state, EDGES) + lowest - 1]


@kernel
def value_of(state: FloatArray, row: FloatArray, cut: int, total: float) -> float:
    """Expected reward of the best rule with this cut, by backward induction; its thresholds are left in RULE."""
    free = whole(state[FREE])
    bins, exits = whole(state[free + BINS]), whole(state[EXITS])
    mu, edge, rule = row[MU], COSTS, field(state, RULE)
    upper, value, on = field(state, HOPE), field(state, VALUE), field(state, ON)
    deepest = whole(min(cut, exits - 1) - 1)
    # From the last side exit on, the cloud and the last segment give the same answer at two prices.
    rest = lost(mu, row[edge + exits + 1 + cut]) if cut < exits else mu * (row[edge + exits] - row[edge + exits - 1])
    for j in range(exits):
        state[rule + j] = math.inf
    if cut == exits:
        state[rule + exits - 1] = -math.inf
    for i in range(deepest + 1):
        j = whole(deepest - i)
        if j == deepest:
            hoped, out = state[upper + j * bins : upper + (j + 1) * bins], state[on : on + bins]
            for b in range(bins):
                out[b] = hoped[b] - rest
        else:
            go_on(state, j, mu * (row[edge + j + 2] - row[edge + j + 1]))
        last = j + 1 == cut
        early = state[free + ON_THE_WAY] == 1.0 and state[field(state, OPEN) + j] == 1.0
        threshold = stop_from(state, j, last or early)
        state[rule + j] = NEVER if threshold == math.inf and not last else threshold
    at = field(state, SIGHTS)
    expected = 0.0
    for b in range(bins):
        expected += (state[at + b] if total > 0.0 else 1.0) * state[value + b]
    return expected / (total if total > 0.0 else bins) - mu * row[edge + 1]  # type: ignore[no-any-return]
