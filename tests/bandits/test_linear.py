"""Ridge regression in a flat state against NumPy's closed form, and what is left of it after very many rounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits.kernel import compile_here
from offramp.bandits.linear import (
    BOUND,
    absorb,
    bounded,
    correct,
    doubt,
    doubt_each,
    entry,
    fade,
    predict_each,
    predicted,
    size,
    start,
)


class Bank:
    """n models side by side: x, z and model columns, then one column for what is asked of all."""

    def __init__(self, n, d, targets, ridge):
        self.n, self.d, self.targets, self.ridge = n, d, targets, ridge
        self.x, self.z, self.at = 0, n * d, 2 * n * d
        self.out = self.at + n * size(d, targets)
        self.state = np.zeros(self.out + n)
        for a in range(n):
            start(self.state, self.at + a, n, d, targets, ridge)

    def describe(self, a, x):
        self.state[self.x + a : self.x + self.n * self.d : self.n] = x

    def learn(self, a, x, y):
        self.describe(a, x)
        absorb(self.state, self.at + a, self.n, self.d, self.x + a, self.z + a)
        for target, value in enumerate(y):
            correct(self.state, self.at + a, self.n, self.d, target, self.x + a, self.z + a, value)

    def matrix(self, a):
        factor = np.zeros((self.d, self.d))
        for i in range(self.d):
            for j in range(i + 1):
                factor[i, j] = self.state[self.at + a + self.n * entry(i, j)]
        return factor @ factor.T

    def coefficients(self, a, target):
        first = self.at + a + self.n * size(self.d, target)
        return self.state[first : first + self.n * self.d : self.n]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.integers(1, 5),
    n=st.integers(1, 3),
    rounds=st.integers(0, 40),
    ridge=st.sampled_from([0.01, 1.0, 30.0]),
)
def test_closed_form(seed, d, n, rounds, ridge):
    rng = np.random.default_rng(seed)
    bank = Bank(n, d, 2, ridge)
    m, b = np.stack([ridge * np.eye(d)] * n), np.zeros((n, 2, d))
    for _ in range(rounds):
        a, x, y = int(rng.integers(n)), rng.normal(size=d), rng.normal(size=2)
        bank.learn(a, x, y)
        m[a] += np.outer(x, x)
        b[a] += np.outer(y, x)
    asked = rng.normal(size=(n, d))
    for a in range(n):
        assert np.allclose(bank.matrix(a), m[a], rtol=1e-10, atol=1e-12)
        bank.describe(a, asked[a])
        for target in range(2):
            theta = np.linalg.solve(m[a], b[a, target])
            assert np.allclose(bank.coefficients(a, target), theta, rtol=1e-8, atol=1e-10)
            mine = predicted(bank.state, bank.at + a, n, d, target, bank.x + a)
            assert mine == pytest.approx(asked[a] @ theta, rel=1e-8, abs=1e-10)
        form = doubt(bank.state, bank.at + a, n, d, bank.x + a, bank.z + a)
        assert form == pytest.approx(asked[a] @ np.linalg.solve(m[a], asked[a]), rel=1e-8)


def test_all_models_at_once_are_bit_for_bit_one_after_the_other():
    rng = np.random.default_rng(1)
    bank = Bank(7, 4, 2, 0.5)
    for _ in range(60):
        bank.learn(int(rng.integers(7)), rng.normal(size=4), rng.normal(size=2))
    for a in range(7):
        bank.describe(a, rng.normal(size=4))
    state = bank.state
    one = [predicted(state, bank.at + a, 7, 4, 1, bank.x + a) for a in range(7)]
    predict_each(state, bank.at, 7, 4, 1, bank.x, bank.out)
    assert state[bank.out :].tolist() == one
    one = [doubt(state, bank.at + a, 7, 4, bank.x + a, bank.z + a) ** 0.5 for a in range(7)]
    doubt_each(state, bank.at, 7, 4, bank.x, bank.z, bank.out)
    assert state[bank.out :].tolist() == one


def test_forgetting_keeps_the_coefficients_and_the_prior():
    rng = np.random.default_rng(2)
    bank = Bank(2, 3, 1, 0.7)
    for _ in range(30):
        bank.learn(1, rng.normal(size=3), rng.normal(size=1))
    before, matrix = bank.state.copy(), bank.matrix(1)
    fade(bank.state, bank.at + 1, 2, 3, bank.z + 1, bank.ridge, 1.0)
    assert np.array_equal(bank.state, before)
    fade(bank.state, bank.at + 1, 2, 3, bank.z + 1, bank.ridge, 0.2)
    assert np.array_equal(bank.coefficients(1, 0), before[bank.at + 1 + 2 * size(3, 0) : bank.out : 2])
    assert np.allclose(bank.matrix(1), 0.2 * matrix + 0.8 * 0.7 * np.eye(3))
    for _ in range(300):
        fade(bank.state, bank.at + 1, 2, 3, bank.z + 1, bank.ridge, 0.5)
    assert np.allclose(bank.matrix(1), 0.7 * np.eye(3)), "nothing is left but the prior, with all its weight"
    x, y = np.array([1.0, 2.0, -1.0]), 5.0
    theta = bank.coefficients(1, 0).copy()
    bank.learn(1, x, [y])
    expected = theta + np.linalg.solve(0.7 * np.eye(3) + np.outer(x, x), x) * (y - x @ theta)
    assert np.allclose(bank.coefficients(1, 0), expected), "the prior's mean is what was known before"


def drive(state, features, targets, factor):
    """Learn one row after the other."""
    for t in range(features.shape[0]):
        for i in range(4):
            state[i] = features[t, i]
        absorb(state, 8, 1, 4, 0, 4)
        correct(state, 8, 1, 4, 0, 0, 4, targets[t])
        fade(state, 8, 1, 4, 4, 0.1, factor)


@pytest.mark.parametrize("factor", [1.0, 0.999])
def test_a_million_rounds_leave_it_sound(factor):
    """Nearly collinear features of very different size: the diagonal never shrinks, and predictions stay exact."""
    rounds = 1_000_000 if factor == 1.0 else 200_000
    rng = np.random.default_rng(6)
    x = np.column_stack([np.ones(rounds), *rng.random((3, rounds))])
    x[:, 2] = x[:, 1] + 1e-3 * x[:, 2]
    x[:, 3] *= 1_000.0
    y = 0.5 - 0.2 * x[:, 1] + 1e-4 * x[:, 3] + rng.normal(0.0, 0.1, rounds)
    state = np.zeros(8 + size(4, 1))
    start(state, 8, 1, 4, 1, 0.1)
    learn = compile_here(drive)
    learn(state, x, y, factor)
    assert np.isfinite(state).all()
    assert min(state[8 + entry(i, i)] for i in range(4)) >= np.sqrt(0.1) * (1.0 - 1e-9)
    if factor == 1.0:
        m = 0.1 * np.eye(4) + x.T @ x
        theta = np.linalg.solve(m, x.T @ y)
        for row in x[:20]:
            state[:4] = row
            assert predicted(state, 8, 1, 4, 0, 0) == pytest.approx(row @ theta, abs=1e-9)
            assert doubt(state, 8, 1, 4, 0, 4) == pytest.approx(row @ np.linalg.solve(m, row), rel=1e-5)
    plain = state.copy()
    learn(state, x[:100], y[:100], factor)
    drive(plain, x[:100], y[:100], factor)
    assert np.array_equal(state, plain), "plain Python and compiled code differ"


def test_what_is_out_of_all_bounds_counts_as_the_bound():
    assert [bounded(v) for v in (1e300, -1e300, 0.25)] == [BOUND, -BOUND, 0.25]
