"""Index policies on whole streams: replay equals rollout, and published forms part from those that know the prices."""

import numpy as np
import pytest

from offramp.bandits import UCB1, AdaEE, ISplitEE, MacsAndBytes, SplitEE, SplitEES
from offramp.bandits.bayes_ucb import BayesUCB
from offramp.bandits.beta_thompson import BetaThompson
from offramp.bandits.epsilon_greedy import EpsilonGreedy
from offramp.bandits.kl_ucb import KLUCB
from offramp.bandits.thompson import GaussianThompson
from offramp.bandits.ucb_tuned import UCBTuned
from offramp.bandits.ucb_v import UCBV
from offramp.environments import Abrupt, RandomWalk, World, replay, rollout

ALL = [UCBV, UCBTuned, KLUCB, BayesUCB, EpsilonGreedy, GaussianThompson, BetaThompson, UCB1]
STREAM = Abrupt(segments=(("clear", 1.0), ("foggy", 3.0)))
CHOICE = {"cuts": (1, 3, 4), "thresholds": (0.5, 0.8)}


@pytest.mark.parametrize(
    "policy",
    [kind(known_costs=known, **CHOICE) for kind in ALL for known in (True, False)]
    + [BayesUCB(posterior="beta", **CHOICE)]
    + [SplitEE(known_costs=False), SplitEES(known_costs=False), AdaEE(cut=2, known_costs=False)]
    + [ISplitEE(known_costs=False, oracle_side_information=True)],
    ids=repr,
)
def test_replay_equals_rollout(policy, small):
    for stream in (STREAM, RandomWalk(conditions=("clear", "foggy"), links=(1.0, 2.0), stay=0.9)):
        fast, fast_state = rollout(policy, small, stream, horizon=300, seed=2)
        slow, slow_state = replay(policy, small, stream, horizon=300, seed=2)
        assert np.array_equal(fast.arms, slow.arms)
        assert np.array_equal(fast_state, slow_state)
        for name, values in fast.sums.items():
            assert np.array_equal(values, slow.sums[name]), name


@pytest.mark.parametrize(
    ("known", "published"),
    [
        (UCB1(**CHOICE), UCB1(known_costs=False, **CHOICE)),
        (SplitEE(), SplitEE(known_costs=False)),
        (SplitEES(oracle_side_information=True), SplitEES(oracle_side_information=True, known_costs=False)),
        (AdaEE(cut=2), AdaEE(cut=2, known_costs=False)),
        (UCBV(**CHOICE), UCBV(known_costs=False, **CHOICE)),
    ],
    ids=lambda p: repr(p),
)
def test_published_and_cost_aware_forms_part_where_prices_change(known, published, small):
    """At constant prices they make the same choices; where the link changes, they do not."""
    one, other = (
        rollout(p, small, Abrupt(segments=(("clear", 1.0),)), horizon=600, seed=0)[0] for p in (known, published)
    )
    assert np.array_equal(one.arms, other.arms)
    dear = World(cache=small.cache, prices=MacsAndBytes(kilobyte=0.05), arms=small.arms)
    stream = Abrupt(segments=(("clear", 0.2), ("clear", 5.0)))
    one, other = (rollout(p, dear, stream, horizon=3_000, seed=0)[0] for p in (known, published))
    assert not np.array_equal(one.arms, other.arms)
