"""Thresholds found with labels: both limits are kept, a small case by hand, and what is refused."""

import itertools
import math

import numpy as np
import pytest

from offramp.bandits import Profile
from offramp.environments import CacheError, ConfidenceCache
from offramp.environments.threshold_search import search_thresholds


def three(n=4, **profile):
    """Exit 1 is right where it is sure, exit 2 adds nothing, exit 3 knows the rest."""
    work = {"segment_macs": (10, 20, 70), "head_macs": (2, 3, 0), "payload_bytes": (1, 1, 1, 0), "layers": (1, 2, 3)}
    return ConfidenceCache.from_arrays(
        confidence=[[[0.9, 0.5, 0.9], [0.8, 0.5, 0.9], [0.4, 0.5, 0.9], [0.4, 0.5, 0.9]]],
        prediction=[[[1, 0, 1], [1, 0, 1], [0, 0, 1], [0, 0, 1]]],
        label=[1, 1, 1, 1],
        conditions=["pristine"],
        profile=Profile(**(work | profile)),
    )


def test_by_hand():
    """Half of the samples leave at exit 1 for 12 of 100, the rest pays its head on top; head 2 is never computed."""
    found = search_thresholds(three(), accuracy_drop=0.0, grid=[0.2, 0.6, 0.8])
    assert found.thresholds == (0.6, math.inf, -math.inf)
    assert found.answered == (0.5, 0.0, 0.5)
    assert found.accuracy == 1.0
    assert found.work == pytest.approx((12 + 12 + 102 + 102) / 400)
    half = search_thresholds(three(), accuracy_drop=0.5, grid=[0.2, 0.6, 0.8])
    assert (half.accuracy, half.work) == (0.5, pytest.approx(0.12))
    assert search_thresholds(three(), work=1.0) == search_thresholds(three(), accuracy_drop=0.0, grid=[1.0])
    assert search_thresholds(three(), work=0.6).accuracy == 1.0
    with pytest.raises(CacheError, match=r"work is 0\.1, allowed with these exits and this grid are 0\.12 or more"):
        search_thresholds(three(), work=0.1)


@pytest.mark.parametrize("drop", [0.0, 0.01, 0.05])
def test_not_far_from_all_settings(drop):
    """Against every setting of a coarse grid, on three exits of the shipped network."""
    whole = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("validation").calibrated("exit")
    rows, keep, grid = slice(0, 500), [0, 3, 6], (0.5, 0.7, 0.8, 0.9, 0.95)
    profile = Profile(
        segment_macs=(20, 30, 50), head_macs=(1, 1, 1), payload_bytes=(1, 1, 1, 0), layers=(1, 2, 3), router_macs=3
    )
    cache = ConfidenceCache.from_arrays(
        confidence=whole.confidence[:1, 0, rows][:, :, keep],
        prediction=whole.prediction[:1, 0, rows][:, :, keep],
        label=whole.label[rows],
        conditions=["pristine"],
        profile=profile,
    )
    found = search_thresholds(cache, accuracy_drop=drop, grid=grid)
    confidence, right = cache.confidence[0, 0], cache.prediction[0, 0] == cache.label[:, None]
    plain = right[:, 2].mean()
    best = math.inf
    for early in itertools.product((*grid, math.inf), repeat=2):
        exits = (confidence >= [*early, -math.inf]).argmax(axis=1)
        spent = np.array([23, 53, 103]) + np.cumsum(np.array([early[0] < math.inf, early[1] < math.inf, True]))
        value, accuracy = spent[exits].mean() / 104, right[np.arange(len(exits)), exits].mean()
        if early == found.thresholds[:2]:
            assert (found.work, found.accuracy) == (pytest.approx(value), pytest.approx(accuracy))
        if accuracy >= plain - drop - 1e-12:
            best = min(best, value)
    assert found.accuracy >= plain - drop - 1e-9
    assert best <= found.work + 1e-12 <= best + 0.03
    within = search_thresholds(cache, work=found.work + 1e-12, grid=grid)
    assert within.work <= found.work + 1e-12
    assert within.accuracy >= plain - drop - 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "accuracy_drop is None and work None, allowed is to give one"),
        ({"accuracy_drop": 0.1, "work": 0.5}, "allowed is to give one of the two"),
        ({"accuracy_drop": -0.1}, "accuracy_drop is -0.1, allowed is a finite number >= 0"),
        ({"work": math.nan}, "work is nan, allowed is a finite number > 0"),
        ({"work": 0.5, "grid": [0.5, 1.5]}, "grid is .*, allowed are numbers in 0..1"),
        ({"work": 0.5, "condition": 1}, "condition is 1, allowed is 0..0"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(CacheError, match=message):
        search_thresholds(three(), **options)
