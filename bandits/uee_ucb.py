"""UEE-UCB: UCB over exits that always answer, rewarded by how often they contradict the first, without confidences."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.pulls import (
    BARE,
    FIRST,
    MEAN,
    PARAMETERS,
    PULLS,
    forget_mean,
    fresh,
    parameter,
    play,
    worth,
)
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import EXITS, PLAY, FloatArray, prediction_at
from offramp.bandits.state import ARMS, FADED, HEADER, OWN_COLUMNS, T, own
from offramp.bandits.state import EXITS as STATE_EXITS
from offramp.bandits.ucb_n import most_telling

BETA = FIRST
TRIPLES, EXCESS, SQUARE, COLUMNS = range(BARE, BARE + 4)


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """The last exit until all were compared, then the largest index; ties go to the shallowest exit."""
    best = most_telling(state, row)
    if best < 0:
        pulls, highest = own(state, PARAMETERS, PULLS), -math.inf
        width = parameter(state, BETA) * math.sqrt(math.log(state[T] + 1.0))
        for a in range(whole(state[ARMS])):
            index = worth(state, row, a) + width / math.sqrt(state[pulls + a])
            if index > highest:
                highest = index
                best = a
    play(state, row, max(best, 0), 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Compare the first exit with every one up to the cut, and each of these with the next."""
    arms = whole(state[ARMS])
    classes = prediction_at(whole(decision[EXITS]))
    pulls, mean = own(state, PARAMETERS, PULLS), own(state, PARAMETERS, MEAN)
    triples, excess = own(state, PARAMETERS, TRIPLES), own(state, PARAMETERS, EXCESS)
    square, first = own(state, PARAMETERS, SQUARE), observation[classes]
    end = state[HEADER + arms + whole(decision[PLAY])]
    for a in range(whole(decision[PLAY]) + 1):
        at = whole(state[HEADER + arms + a])
        mine = observation[classes + at - 1]
        if first >= 0.0 and mine >= 0.0:
            state[pulls + a] += 1.0
            apart = 1.0 if mine != first else 0.0
            state[mean + a] += (apart - state[mean + a]) / state[pulls + a]
            if at > 1 and at < end and observation[classes + at] >= 0.0:
                after = observation[classes + at]
                x = apart + (1.0 if mine != after else 0.0) - (1.0 if first != after else 0.0)
                state[triples + a] += 1.0
                state[excess + a] += (x - state[excess + a]) / state[triples + a]
                state[square + a] += (x * x - state[square + a]) / state[triples + a]


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the shares, but only a part of their weight."""
    forget_mean(state, factor)
    triples = own(state, PARAMETERS, TRIPLES)
    for a in range(whole(state[ARMS])):
        if state[triples + a] > 0.0:
            state[triples + a] = max(state[triples + a] * factor, FADED)


class Dominance(NamedTuple):
    """How far the answers of one exit contradict strong dominance; see `dominance`."""

    exit: int  # j, before the last and after the first
    seen: float  # rounds in which exits 1, j and j + 1 all answered, as far as they are not forgotten
    excess: float  # mean of 1[y_1 != y_j] + 1[y_j != y_(j+1)] - 1[y_1 != y_(j+1)], in [0, 2]; nan where none was seen
    error: float  # its standard error; nan where one or none was


def dominance(state: FloatArray) -> list[Dominance]:
    r"""What the answers alone say against the assumption that `UEEUCB` rests on, for each exit between first and last.

    Let strong dominance hold, and let exits that are wrong agree.  Then whoever contradicts exit 1 is right, and so are
    all deeper ones: along the exits the answer changes once at most, and the excess is 0 in every single round.
    So a mean that is clearly above 0 refutes the assumption, without a label.  With the bias
    :math:`b_{jk} = P(y_j \ne y_k) - (e_j - e_k) \ge 0` of each comparison the mean is
    :math:`b_{1j} + b_{j,j+1} - b_{1,j+1}`: at least one of the first two is half of it or more.

    What may not be concluded: a mean of 0 proves nothing (an exit that is right, followed by deeper ones that are wrong
    alike, has no excess); the mean is no measure of the regret, since a bias that all exits share changes no choice;
    and it cannot tell a broken dominance from wrong exits that differ, which many classes make common.

    Parameters
    ----------
    state
        A state of `UEEUCB`, of an engine or at the end of a rollout.

    Returns
    -------
    list
        One entry for each exit 2..L-1 among the arms.

    Raises
    ------
    ValueError
        The state is of another policy.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.uee_ucb import UEEUCB, dominance
    >>> engine = Engine(UEEUCB(), arms=Arms.grid(exits=3), seed=0)
    >>> decision = engine.decide(Quote(edge_cost=[0, 0.1, 0.2, 0.3], offload_cost=[1, 1, 1, 0], mu=1.0))
    >>> seen = Observation(confidence=[0.5, 0.6, 0.7], answered_at=3, offloaded=False, prediction=[4, 2, 4])
    >>> engine.update(decision, seen)
    True
    >>> dominance(engine.state())
    [Dominance(exit=2, seen=1.0, excess=2.0, error=nan)]

    """
    if state[OWN_COLUMNS] != COLUMNS:
        raise ValueError(f"state has {state[OWN_COLUMNS]:g} columns, allowed are {COLUMNS}: a state of UEEUCB")
    arms, found = whole(state[ARMS]), []
    first = own(state, PARAMETERS, TRIPLES)
    counts, excess, square = state[first : first + 3 * arms].reshape(3, arms).tolist()
    for a, cut in enumerate(state[HEADER + arms : HEADER + 2 * arms].tolist()):
        if 1 < cut < state[STATE_EXITS]:
            n, mean = counts[a], excess[a] if counts[a] > 0.0 else math.nan
            error = math.sqrt(max(square[a] - mean * mean, 0.0) / (n - 1.0)) if n > 1.0 else math.nan
            found.append(Dominance(int(cut), n, mean, error))
    return found


@dataclass(frozen=True, kw_only=True)
class UEEUCB:
    r"""Finds the exit with the least sum of error and cost from answers that contradict each other.

    An arm is an exit at which all samples stop.  If an exit that is right makes all deeper ones right (strong
    dominance), exit j errs less often than the first by the share :math:`p_{1j}` of samples on which the two differ; so
    it plays the exit with the largest

    .. math:: \hat p_{1j} - \mu\gamma_j + \beta\sqrt{\ln(t + 1) / n_j},

    and learns, from the answers on the way, about the played exit and all before it.

    Parameters
    ----------
    beta
        Width of the bonus, finite, >= 0: the root of the paper's :math:`\alpha`, which is 1.

    Notes
    -----
    Hari Narayan, Hanawal, Bhardwaj, UEE-UCB (arXiv 2209.09480).  The constant :math:`\gamma_1` of the paper's index is
    left out; costs are subtracted as quoted.  It learns on its own reward, and is scored on the common one: it reads no
    confidence at all.  Exits never compared come first, the one chosen least often, of equals the deepest.

    Strong dominance is often broken, and then the surrogate prefers the wrong exit for good: see `dominance`.

    A world that evaluates the head of the cut alone shows one answer a round, and nothing can be compared: the policy
    then plays the exits after the first in turn, for good.  Where classes are not passed on, all exits in turn.

    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """At each cut, the arm that always answers."""
        return [arm for arm in arms.single if arm.threshold == -math.inf]

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing compared."""
        given = (self.beta,)
        return fresh(arms, self.plays(arms), features, known_costs=True, parameters=given, columns=COLUMNS)


@compiled
def rollout(state: FloatArray, world: World, block: Block, record: Record) -> int:
    """Play a block of rounds."""
    return loop(select, update, reveal, state, world, block, record)


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
