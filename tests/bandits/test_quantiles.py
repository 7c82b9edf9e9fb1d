"""Quantiles and distribution functions against SciPy's, over ranges wider than any policy needs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from offramp.bandits.kernel import compile_here
from offramp.bandits.quantiles import (
    EXPANDED,
    beta_cdf,
    beta_quantile,
    log_beta,
    log_gamma,
    lower_beta_quantile,
    normal_cdf,
    normal_quantile,
    student_quantile,
)

RNG = np.random.default_rng(0)
TAILS = np.concatenate([10 ** RNG.uniform(-14, math.log10(0.5), 400), [0.5, 0.25, 0.075, 0.0750001, 1e-300]])
SHAPES = 10 ** RNG.uniform(math.log10(0.5), 6, (400, 2))


def relative(mine, reference):
    return np.abs(np.array(mine) / np.array(reference) - 1.0).max()


def test_normal():
    assert relative([normal_quantile(p) for p in TAILS[TAILS < 0.5]], special.ndtri(TAILS[TAILS < 0.5])) < 1e-14
    assert [normal_quantile(1.0 - p) for p in (0.3, 0.01)] == pytest.approx(special.ndtri([0.7, 0.99]), rel=1e-13)
    assert normal_quantile(0.5) == 0.0
    x = np.linspace(-30.0, 8.0, 500)
    assert relative([normal_cdf(v) for v in x], special.ndtr(x)) < 1e-12


def test_gamma_and_beta_functions():
    x = 10 ** RNG.uniform(-3, 9, 500)
    assert [log_gamma(v) for v in x] == pytest.approx(special.gammaln(x), rel=1e-12, abs=1e-13)
    small = x[x < 1e3]
    assert np.abs([log_gamma(v) for v in small] - special.gammaln(small)).max() < 1e-11
    mine = np.array([log_beta(a, b) for a, b in SHAPES])
    assert relative(mine, special.betaln(*SHAPES.T)) < 1e-9
    # Where the three gamma functions of a library cancel, the Beta function has a simple form: B(1, b) = 1 / b.
    assert log_beta(1.0, 1e12) == pytest.approx(-math.log(1e12), rel=1e-14)


def test_beta_quantile():
    cases = [(p, a, b) for p, (a, b) in zip(TAILS, SHAPES, strict=False)]
    mine = [beta_quantile(p, a, b) for p, a, b in cases]
    assert relative(mine, [special.betaincinv(a, b, p) for p, a, b in cases]) < 1e-9
    upper = [1.0 - beta_quantile(1.0 - p, a, b) for p, a, b in cases if 1e-3 < p < 0.5]
    reference = [special.betaincinv(b, a, 1.0 - (1.0 - p)) for p, a, b in cases if 1e-3 < p < 0.5]
    assert np.abs(np.array(upper) - reference).max() < 1e-12
    assert (beta_quantile(0.0, 2.0, 3.0), beta_quantile(1.0, 2.0, 3.0)) == (0.0, 1.0)
    assert lower_beta_quantile(1e-200, 0.5, 40.0) == pytest.approx(special.betaincinv(0.5, 40.0, 1e-200), rel=1e-9)


def test_beta_distribution_function():
    x = RNG.random(len(SHAPES))
    reference = special.betainc(*SHAPES.T, x)
    mine = np.array([beta_cdf(v, a, b) for v, (a, b) in zip(x, SHAPES, strict=True)])
    seen = reference > 1e-250
    assert relative(mine[seen], reference[seen]) < 2e-9
    assert mine[~seen] == pytest.approx(0.0, abs=1e-240)
    assert (beta_cdf(-0.1, 2.0, 2.0), beta_cdf(0.0, 2.0, 2.0), beta_cdf(1.0, 2.0, 2.0)) == (0.0, 0.0, 1.0)


def test_student_quantile():
    dof = np.concatenate([10 ** RNG.uniform(0, 8, len(TAILS) - 4), [1.0, 2.0, EXPANDED - 1e-9, EXPANDED]])
    usable = TAILS > 1e-15
    mine = [student_quantile(p, d) for p, d in zip(TAILS[usable], dof[usable], strict=True)]
    reference = stats.t.isf(TAILS[usable], dof[usable])
    assert np.abs(np.array(mine) - reference).max() < 1e-9 * np.abs(reference).max()
    tail = reference > 1e-3
    assert relative(np.array(mine)[tail], reference[tail]) < 1e-9
    assert student_quantile(0.5, 3.0) == student_quantile(0.5, 5e3) == 0.0


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-10, 1.0 - 1e-10), st.floats(0.1, 1e4), st.floats(0.1, 1e4))
def test_the_quantile_inverts_the_distribution_function(p, a, b):
    x = beta_quantile(p, a, b)
    rounded = (
        2.0**-53 if p > 0.5 else 0.0
    )  # above 1/2 it is one minus the result that is exact, so x is as good as this
    if 1e-300 < x < 1.0 - 1e-12:
        assert beta_cdf(x - rounded, a, b) <= p * (1.0 + 1e-7) + 1e-12
        assert beta_cdf(x + rounded, a, b) >= p * (1.0 - 1e-7) - 1e-12


def test_compiled_and_plain_agree_in_the_last_bit():
    beta, student = compile_here(lambda p, a, b: beta_quantile(p, a, b)), compile_here(student_wrapped)
    for p, (a, b) in zip(TAILS[:150].tolist(), SHAPES[:150].tolist(), strict=True):
        assert beta(p, a, b) == beta_quantile(p, a, b)
        assert beta(1.0 - p, a, b) == beta_quantile(1.0 - p, a, b)
        assert student(p, a) == student_quantile(p, max(a, 1.0))


def student_wrapped(p, dof):
    return student_quantile(p, max(dof, 1.0)) + 0.0 * normal_quantile(p)
