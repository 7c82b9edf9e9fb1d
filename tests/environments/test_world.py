"""A world asks the expert that its routing names, tells a policy who that is, and prices what found it out."""

from dataclasses import replace

import numpy as np
import pytest

from offramp.bandits import Engine, SplitEES
from offramp.bandits.contract import ContractError
from offramp.bandits.reveal import CLOUD_ALL, FALLBACK, ORACLE, PREFIX
from offramp.bandits.rows import COSTS
from offramp.environments import CacheError
from offramp.environments.regret import gaps

STREAM = ("grainy", "clear", "packed", "soft")  # in another order than the cache's
LINKS = (1.0, 0.5)


def asked(world):
    """Name of the expert of each condition and sample, found from the arrays of the stream, (S, N)."""
    arrays, cache = world.arrays(STREAM, LINKS), world.cache
    names = np.full(arrays.confidence.shape[:2], "", dtype=object)
    for s, name in enumerate(STREAM):
        for n in range(len(cache.label)):
            here = cache.confidence[cache.condition(name), :, n], cache.prediction[cache.condition(name), :, n]
            same = [
                np.array_equal(arrays.confidence[s, n], c) and np.array_equal(arrays.prediction[s, n], p)
                for c, p in zip(*here, strict=True)
            ]
            assert sum(same) == 1
            names[s, n] = cache.experts[same.index(True)]
    return names


def test_predicted_routing_asks_the_likeliest_expert_of_each_sample(routed):
    found, cache = asked(routed), routed.cache
    for s, name in enumerate(STREAM):
        for n, probability in enumerate(cache.router[cache.condition(name)].tolist()):
            assert found[s, n] == cache.experts[probability.index(max(probability))]
    assert len(set(found[0])) == 3


def test_oracle_routing_asks_the_expert_of_the_family_and_the_first_where_there_is_none(routed):
    found = asked(replace(routed, routing="oracle"))
    for s, expert in enumerate(("noise", "pristine", "pristine", "blur")):
        assert set(found[s]) == {expert}


@pytest.mark.parametrize(("routing", "expert"), [(None, "pristine"), ("pristine", "pristine"), ("noise", "noise")])
def test_a_name_asks_one_expert_for_everything_and_no_name_the_first(routed, routing, expert):
    assert set(asked(replace(routed, routing=routing)).ravel()) == {expert}


@pytest.mark.parametrize("routing", ["predicted", "oracle"])
def test_context_is_the_expert_and_the_probability_of_each(routed, routing):
    world = replace(routed, routing=routing)
    arrays, names = world.arrays(STREAM, LINKS), asked(world)
    assert arrays.context.shape == (4, 60, 4)
    assert arrays.context.dtype == np.float64
    for s, name in enumerate(STREAM):
        row = arrays.context[s]
        assert [world.cache.experts[int(i)] for i in row[:, 0]] == names[s].tolist()
        assert np.array_equal(row[:, 1:], world.cache.router[world.cache.condition(name)])


@pytest.mark.parametrize("routing", [None, "blur"])
def test_there_is_no_context_where_nothing_is_routed(routed, routing):
    assert replace(routed, routing=routing).arrays(STREAM, LINKS).context.shape == (4, 60, 0)


def test_oracle_routing_needs_no_router(routed):
    world = replace(routed, cache=replace(routed.cache, router=None), routing="oracle")
    assert np.array_equal(asked(world), asked(replace(routed, routing="oracle")))
    assert world.arrays(STREAM, LINKS).context.shape == (4, 60, 0)


def test_context_reaches_the_policy(routed):
    arrays = routed.arrays(STREAM, LINKS)
    engine = Engine(SplitEES(threshold=0.7), arms=routed.arms, seed=0, features=arrays.context.shape[2])
    quote = routed.prices.quote(routed.profile)
    for s, n in ((0, 0), (3, 59)):
        assert np.array_equal(engine.decide(quote, arrays.context[s, n]).context, arrays.context[s, n])
    with pytest.raises(ContractError):
        engine.decide(quote)


def test_router_is_priced_only_where_it_routes(routed):
    """8 of 101 multiply-accumulates, at every cut but that which sends the input."""
    for routing in (None, "oracle", "blur"):
        plain = replace(routed, routing=routing)
        assert plain.profile.router_macs == 0
        at, without = (w.arrays(STREAM, LINKS) for w in (routed, plain))
        assert (at.work[0] - without.work[0]).tolist() == [0.0, 8.0, 8.0, 8.0, 8.0]
        assert np.array_equal(at.work[1], without.work[1])
        edge = [routed.prices.quote(w.profile).edge_cost for w in (routed, plain)]
        assert edge[0] - edge[1] == pytest.approx(np.array([0.0, 1.0, 1.0, 1.0, 1.0]) * 0.3 * 8 / 101)
        width = len(edge[0])
        assert all(np.array_equal(row[COSTS : COSTS + width], edge[0]) for row in at.quotes)
        assert all(np.array_equal(row[COSTS : COSTS + width], edge[1]) for row in without.quotes)
    assert routed.profile.router_macs == routed.cache.profile.router_macs == 8


def test_options_are_those_of_the_world(routed):
    def options(**changed):
        return replace(routed, **changed).arrays(STREAM, LINKS).options.tolist()

    found = [0] * 4
    found[PREFIX] = 1
    assert options() == found
    for changed, at, value in (
        ({"evaluate": "own"}, PREFIX, 0),
        ({"cloud_returns": "all"}, CLOUD_ALL, 1),
        ({"fallback": "most_confident"}, FALLBACK, 1),
    ):
        assert options(**changed) == [value if i == at else v for i, v in enumerate(found)]
    assert routed.arrays(STREAM, LINKS, oracle=True).options[ORACLE] == 1


@pytest.mark.parametrize("evaluate", ["own", "prefix"])
def test_regret_is_that_of_the_experts_asked_and_of_the_fallback(routed, evaluate):
    world = replace(routed, evaluate=evaluate, fallback="most_confident")
    arrays = world.arrays(STREAM, LINKS)
    assert np.array_equal(arrays.gap, gaps(arrays.confidence, arrays.quotes, world.arms, arrays.options))
    assert not np.allclose(arrays.gap, replace(world, fallback="none").arrays(STREAM, LINKS).gap)
    assert not np.allclose(arrays.gap, replace(world, routing="oracle").arrays(STREAM, LINKS).gap)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"routing": "light"}, ["routing is 'light'", "('pristine', 'blur', 'noise', 'oracle', 'predicted')"]),
        ({"fallback": "surest"}, ["fallback is 'surest'", "('none', 'most_confident')"]),
        ({"evaluate": "all"}, ["evaluate is 'all'", "('own', 'prefix')"]),
        ({"cloud_returns": "none"}, ["cloud_returns is 'none'", "('final', 'all')"]),
    ],
)
def test_unknown_rule_is_answered_with_those_there_are(routed, changed, said):
    with pytest.raises(ValueError, match="allowed") as caught:
        replace(routed, **changed)
    for words in said:
        assert words in str(caught.value)


def test_predicted_routing_needs_a_router_and_prices_a_profile(routed):
    with pytest.raises(ValueError, match=r"routing is 'predicted', allowed with this cache are .*'oracle'\)"):
        replace(routed, cache=replace(routed.cache, router=None))
    with pytest.raises(CacheError, match="profile is missing"):
        replace(routed, cache=replace(routed.cache, profile=None))
