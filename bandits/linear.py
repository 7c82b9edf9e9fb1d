r"""Ridge regression inside a flat state: a Cholesky factor that observations only lengthen, and the coefficients.

A model predicts y from d features x by :math:`x^\top\theta`, with

.. math:: M = \lambda I + \sum x x^\top, \qquad \theta = M^{-1} \sum x y,

and says how little it knows about x by :math:`x^\top M^{-1} x`.  It holds the lower factor C of :math:`M = C C^\top`,
row by row, and then the d coefficients of each target that shares M: `size(d, targets)` numbers, `step` apart from `at`
on.  `x` and `z` are places of d numbers, `step` apart as well: features, and scratch.  One model alone stands in a row
(step 1); n models stand side by side as columns of length n (step n, `at`, `x` and `z` each plus the model's number),
and then `predict_each` and `doubt_each` go through all of them at once, column by column.

Numbers stay sound for any number of rounds without a refresh.  A rotation takes an observation into the factor, and can
only lengthen its diagonal, which begins at :math:`\sqrt\lambda`: nothing is subtracted, so M stays positive definite,
where the Sherman-Morrison update of the inverse cancels.  The coefficients move by the residual of each observation,
which corrects earlier rounding as well.  Forgetting takes M to :math:`f M + (1 - f)\lambda I` and leaves the
coefficients as they are: what was learnt becomes the mean of the prior, which keeps its weight.

Notes
-----
Rank-one update: Gill, Golub, Murray, Saunders (1974).  The discounted form is that of D-LinUCB (Russac, Vernade, Cappé
2019), where the prior's mean stays at zero instead.

"""

import math

from offramp.bandits.kernel import kernel
from offramp.bandits.rows import FloatArray

BOUND = 1e6  # a feature or a target beyond it counts as this much: squares of it can be summed for ever


@kernel
def bounded(value: float) -> float:
    """A number within +-BOUND."""
    return min(max(value, -BOUND), BOUND)


@kernel
def entry(i: int, j: int) -> int:
    """Which number of a model is entry (i, j) of its factor, j <= i."""
    return i * (i + 1) // 2 + j


@kernel
def size(d: int, targets: int) -> int:
    """Numbers of a model."""
    return d * (d + 1) // 2 + targets * d


@kernel
def start(state: FloatArray, at: int, step: int, d: int, targets: int, ridge: float) -> None:
    """A model that has seen nothing: M = ridge * I, all coefficients 0."""
    for e in range(size(d, targets)):
        state[at + step * e] = 0.0
    for i in range(d):
        state[at + step * entry(i, i)] = math.sqrt(ridge)


@kernel
def predicted(state: FloatArray, at: int, step: int, d: int, target: int, x: int) -> float:
    """The prediction for x."""
    first = at + step * size(d, target)
    total = 0.0
    for i in range(d):
        total += state[x + step * i] * state[first + step * i]
    return total


@kernel
def predict_each(state: FloatArray, at: int, n: int, d: int, target: int, x: int, out: int) -> None:
    """The prediction of each of n models for an x of its own, into the column that starts at `out`."""
    made = state[out : out + n]
    for a in range(n):
        made[a] = 0.0
    for i in range(d):
        first, feature = at + n * (size(d, target) + i), x + n * i
        coefficient, value = state[first : first + n], state[feature : feature + n]
        for a in range(n):
            made[a] += value[a] * coefficient[a]


@kernel
def doubt(state: FloatArray, at: int, step: int, d: int, x: int, z: int) -> float:
    """The quadratic form of x with the inverse of M, >= 0; leaves x divided by the factor in z."""
    total = 0.0
    for i in range(d):
        rest = state[x + step * i]
        for j in range(i):
            rest -= state[at + step * entry(i, j)] * state[z + step * j]
        rest /= state[at + step * entry(i, i)]
        state[z + step * i] = rest
        total += rest * rest
    return total


@kernel
def doubt_each(state: FloatArray, at: int, n: int, d: int, x: int, z: int, out: int) -> None:
    """The root of `doubt` of each of n models for an x of its own, into the column that starts at `out`."""
    total = state[out : out + n]
    for a in range(n):
        total[a] = 0.0
    for i in range(d):
        first, feature = z + n * i, x + n * i
        rest, value = state[first : first + n], state[feature : feature + n]
        for a in range(n):
            rest[a] = value[a]
        for j in range(i):
            first, other = at + n * entry(i, j), z + n * j
            factor, solved = state[first : first + n], state[other : other + n]
            for a in range(n):
                rest[a] -= factor[a] * solved[a]
        first = at + n * entry(i, i)
        diagonal = state[first : first + n]
        for a in range(n):
            rest[a] /= diagonal[a]
            total[a] += rest[a] * rest[a]
    for a in range(n):
        total[a] = math.sqrt(total[a])


@kernel
def lengthen(state: FloatArray, at: int, step: int, d: int, first: int, z: int) -> None:
    """Add the outer product of z to M; z is used up, and its entries before `first` are 0."""
    for k in range(first, d):
        diagonal = at + step * entry(k, k)
        before, new = state[diagonal], state[z + step * k]
        after = math.sqrt(before * before + new * new)
        c, s = after / before, new / before
        state[diagonal] = after
        for i in range(k + 1, d):
            e, rest = at + step * entry(i, k), z + step * i
            state[e] = (state[e] + s * state[rest]) / c
            state[rest] = c * state[rest] - s * state[e]


@kernel
def absorb(state: FloatArray, at: int, step: int, d: int, x: int, z: int) -> None:
    """Take features into M, and leave in z the direction in which `correct` then moves the coefficients."""
    for i in range(d):
        state[z + step * i] = state[x + step * i]
    lengthen(state, at, step, d, 0, z)
    doubt(state, at, step, d, x, z)
    for k in range(d):
        i = d - 1 - k
        rest = state[z + step * i]
        for j in range(i + 1, d):
            rest -= state[at + step * entry(j, i)] * state[z + step * j]
        state[z + step * i] = rest / state[at + step * entry(i, i)]


@kernel
def correct(state: FloatArray, at: int, step: int, d: int, target: int, x: int, z: int, y: float) -> None:
    """Move the coefficients of one target by what y differs from the prediction; after `absorb`."""
    first = at + step * size(d, target)
    residual = y - predicted(state, at, step, d, target, x)
    for i in range(d):
        state[first + step * i] += residual * state[z + step * i]


@kernel
def fade(state: FloatArray, at: int, step: int, d: int, z: int, ridge: float, factor: float) -> None:
    """Leave a share of the weight of what was seen; the coefficients, and the weight of the prior, stay."""
    if factor == 1.0:
        return
    for e in range(size(d, 0)):
        state[at + step * e] *= math.sqrt(factor)
    for i in range(d):
        for j in range(i + 1, d):
            state[z + step * j] = 0.0
        state[z + step * i] = math.sqrt((1.0 - factor) * ridge)
        lengthen(state, at, step, d, i, z)
