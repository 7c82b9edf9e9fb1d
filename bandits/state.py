"""The flat state of a policy: a header, its parameters, the arms it plays, its own columns, and its uniforms.

====================  =======================================================================
T                     decisions made so far (shrinks when the policy forgets)
ARMS                  K, arms that the policy plays
EXITS                 L, exits of the network
FEATURES              d, context features
DRAWS                 uniforms that one decision may use
UNIFORMS              uniforms in the block at the end of the state, 0 for a policy that draws none
CURSOR                first uniform of the block that is still unused
FREE                  start of the policy's own numbers: parameters first, then columns of length K
OWN_PARAMETERS        how many parameters there are
OWN_COLUMNS           how many columns of length K follow them
OWN_EXTRA             how many single numbers follow those
COUNTING, COUNTED     parameter that counts the arms of which this column says 0; -1 where none does
SEES_ALL              1 = hidden confidences are shown on purpose (replicas of published code), see `fresh`
MADE                  decisions made in all; never shrinks: the ROUND of the next one, which no other has
====================  =======================================================================

After the header stand three columns of length K (index in the engine's table, cut, threshold), then the policy's own.
"""

import numpy as np

from offramp.bandits.kernel import kernel, whole
from offramp.bandits.rows import ARM, P_ACTION, PLAY, ROUND, FloatArray, set_rule

T, ARMS, EXITS, FEATURES, DRAWS, UNIFORMS, CURSOR, FREE = range(8)
OWN_PARAMETERS, OWN_COLUMNS, OWN_EXTRA, COUNTING, COUNTED, SEES_ALL, MADE = range(8, 15)
HEADER = 15
FADED = 1e-9  # the least weight that forgetting leaves of an observation: never zero, which means "never seen"
BLOCK = 1_024  # decisions whose uniforms are drawn at once


def pack(
    *,
    table: FloatArray,
    exits: int,
    features: int,
    draws: int,
    parameters: tuple[float, ...],
    columns: int = 0,
    extra: int = 0,
    untried: tuple[int, int] | None = None,
) -> FloatArray:
    """A fresh state.

    Parameters
    ----------
    table
        Arms that the policy plays, (K, 3): index in the engine's table, cut, threshold.
    exits, features
        L and d.
    draws
        Uniforms that one decision may use.
    parameters
        The policy's constants.
    columns, extra
        Columns of length K, and single numbers after them, that the policy keeps; all start at zero.
    untried
        (i, k) where parameter i counts the arms whose entry in column k is 0: it is counted anew where the table of
        arms changes, see `offramp.bandits.rearm`.

    """
    arms = len(table)
    free = HEADER + 3 * arms
    uniforms = draws * BLOCK
    state = np.zeros(free + len(parameters) + columns * arms + extra + uniforms)
    counting, counted = (-1, -1) if untried is None else untried
    state[: FREE + 1] = (0, arms, exits, features, draws, uniforms, uniforms, free)
    state[FREE + 1 : MADE] = (len(parameters), columns, extra, counting, counted, 0)
    state[HEADER:free] = table.T.ravel()
    state[free : free + len(parameters)] = parameters
    return state


@kernel
def own(state: FloatArray, parameters: int, k: int) -> int:
    """Where the policy's k-th own column of length K starts, behind so many parameters.

    Straight loops read a column through a slice made on the spot, which spares the test for negative indices
    (48 ns against 78 for twelve arms); a compiled kernel cannot return a slice.
    """
    return whole(state[FREE]) + parameters + k * whole(state[ARMS])


@kernel
def choose(state: FloatArray, row: FloatArray, play: int, p_action: float) -> None:
    """Write the choice of one of the policy's arms into a decision row, and count the decision."""
    arms = whole(state[ARMS])
    set_rule(row, whole(state[HEADER + arms + play]), state[HEADER + 2 * arms + play])
    row[ARM] = state[HEADER + play]
    row[PLAY] = play
    row[P_ACTION] = p_action
    row[ROUND] = state[MADE]
    state[T] += 1.0
    state[MADE] += 1.0


@kernel
def dry(state: FloatArray) -> bool:
    """Are there too few uniforms left for one more decision?"""
    return state[CURSOR] + state[DRAWS] > state[UNIFORMS]  # type: ignore[no-any-return]


@kernel
def uniform(state: FloatArray) -> float:
    """The next uniform number in [0, 1)."""
    at = state.shape[0] - whole(state[UNIFORMS]) + whole(state[CURSOR])
    state[CURSOR] += 1.0
    return state[at]  # type: ignore[no-any-return]


def refill(state: FloatArray, rng: np.random.Generator) -> None:
    """Draw a fresh block of uniforms."""
    n = whole(state[UNIFORMS])
    state[len(state) - n :] = rng.random(n)
    state[CURSOR] = 0.0
