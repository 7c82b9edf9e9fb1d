"""The hidden change, put together by hand; and prices given cut by cut."""

import numpy as np
import pytest

from offramp.bandits.listed import Listed
from offramp.environments import CacheError, ConfidenceCache, World
from offramp.environments.hidden import hidden_change


def test_early_exits_of_the_one_and_the_last_of_the_other(embedded):
    cache = embedded.select(np.arange(50))
    changed = hidden_change(cache, early="pristine", last="contrast 0.2", name="hidden")
    a, b, made = (changed.condition(n) for n in ("pristine", "contrast 0.2", "hidden"))
    for values in (changed.confidence, changed.prediction, changed.spread):
        assert np.array_equal(values[made, ..., :-1], values[a, ..., :-1])
        assert np.array_equal(values[made, ..., -1], values[b, ..., -1])
    assert np.array_equal(changed.router[made], cache.router[a])
    assert np.array_equal(changed.confidence[:made], cache.confidence)
    assert changed.conditions[made].family == "pristine"
    tempered = changed.calibrated("expert_exit")  # the derivation and the temperatures commute
    assert np.array_equal(tempered.confidence[made, ..., -1], tempered.confidence[b, ..., -1])


def test_what_cannot_be_derived_is_refused(embedded):
    cache = embedded.select(np.arange(5))
    for early, last, name, message in (
        ("pristine", "pristine", None, "both 'pristine', allowed are two"),
        ("pristine", "dust", None, "'dust' is not in this cache"),
        ("pristine", "noise 5", "blur 0.5", "allowed is one that no condition"),
    ):
        with pytest.raises(CacheError, match=message):
            hidden_change(cache, early=early, last=last, name=name)
    one = ConfidenceCache.from_arrays(
        confidence=[[[0.5]], [[0.6]]], prediction=[[[0]], [[0]]], label=[0], conditions=["a", "b"]
    )
    with pytest.raises(CacheError, match="one exit, allowed are two or more"):
        hidden_change(one, early="a", last="b")


def test_listed_prices_are_quoted_as_they_stand(small):
    prices = Listed(edge=(0.0, 0.1, 0.2, 0.3, 0.4), offload=(1.0, 0.5, np.inf, 0.25, 0.0), mu=0.5)
    quote = prices.quote(small.profile, link=2.0)
    assert quote.edge_cost.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert quote.offload_cost.tolist() == [np.inf, 1.0, np.inf, 0.5, 0.0]
    assert quote.mu == 0.5
    assert prices.quote(small.profile, raw_input_allowed=True).offload_cost[0] == 1.0
    world = World(cache=small.cache, prices=prices, arms=small.arms)
    assert world.quotes([1.0, 2.0]).shape[0] == 2


@pytest.mark.parametrize(
    ("edge", "offload", "mu", "message"),
    [
        ((0.0, 0.1), (0.1, 0.0, 0.0), 1.0, r"edge has 2 prices and offload 3"),
        ((0.0, -0.1), (0.1, 0.0), 1.0, r"edge\[1\] is -0\.1"),
        ((0.0, np.inf), (0.1, 0.0), 1.0, r"edge\[1\] is inf"),
        ((0.0, 0.1), (np.nan, 0.0), 1.0, r"offload\[0\] is nan"),
        ((0.0, 0.1), (0.1, 0.2), 1.0, r"offload of the last cut is 0\.2, allowed is 0"),
        ((0.0, 0.1), (0.1, 0.0), -1.0, r"mu is -1\.0"),
    ],
)
def test_what_no_price_list_can_be_is_refused(edge, offload, mu, message):
    with pytest.raises(ValueError, match=message):
        Listed(edge=edge, offload=offload, mu=mu)


def test_a_list_for_another_network_is_refused(small):
    prices = Listed(edge=(0.0, 0.1), offload=(0.1, 0.0))
    with pytest.raises(ValueError, match="edge has 2 prices, allowed are 5"):
        prices.quote(small.profile)
    with pytest.raises(ValueError, match=r"link is 0\.0"):
        prices.quote(small.profile, link=0.0)
