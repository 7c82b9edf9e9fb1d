"""Which image comes under which condition and is answered by whose exits: matched, routed, or misrouted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments import ConfidenceCache
from offramp.environments.cache import CALIBRATIONS
from offramp.environments.routing import experts_of
from offramp.models.families import FAMILIES

CLEAR = FAMILIES[0]
ROUTED, PRISTINE = "routed experts", "pristine exits"
SYSTEMS = (ROUTED, PRISTINE)
Caches = Mapping[str, ConfidenceCache]  # the test part of one cache, by calibration


@dataclass(frozen=True, eq=False)
class View:
    """What the exits that were asked say about n samples: confidence, prediction, and whether that is right, (n, L)."""

    confidence: FloatArray
    prediction: IntArray
    correct: IntArray


def calibrations(cache: ConfidenceCache) -> dict[str, ConfidenceCache]:
    """A cache under each of the calibrations that it holds, raw first."""
    return {name: cache.calibrated(name) for name in CALIBRATIONS if name == "raw" or name in cache.calibrations}


def view(cache: ConfidenceCache, condition: IntArray, expert: IntArray) -> View:
    """Sample i under condition[i], answered by expert[i]; (N,) each."""
    at = condition, expert, np.arange(len(cache.label))
    prediction = cache.prediction[at].astype(np.int64)
    return View(cache.confidence[at], prediction, (prediction == cache.label[:, None]).astype(np.int64))


def levels_of(cache: ConfidenceCache, family: str) -> list[int]:
    """The conditions of a family, by index."""
    return [s for s, condition in enumerate(cache.conditions) if condition.family == family]


def matched(cache: ConfidenceCache, expert: int) -> IntArray:
    """Condition of each sample, (N,): every second one pristine, the others at their family's levels in turn."""
    clear = levels_of(cache, CLEAR)[0]
    levels = levels_of(cache, cache.experts[expert])
    turn = np.arange(len(cache.label))
    return np.where(turn % 2 == 0, clear, np.array(levels)[turn // 2 % len(levels)])


def mixed(cache: ConfidenceCache, names: Sequence[str]) -> IntArray:
    """Condition of each sample, (N,): the named ones in turn, as often as they are named."""
    places = np.array([cache.condition(name) for name in names])
    found: IntArray = places[np.arange(len(cache.label)) % len(places)]
    return found


def oracle(cache: ConfidenceCache, condition: IntArray) -> IntArray:
    """The expert of each sample's family, the first where a family has none, (N,)."""
    return experts_of(cache, "oracle")[condition, np.arange(len(condition))]


def answering(cache: ConfidenceCache, condition: IntArray, system: str) -> IntArray:
    """The expert that answers each sample, (N,): the router's choice, or the first for all of "pristine exits"."""
    routing = None if system == PRISTINE or cache.router is None else "predicted"
    return experts_of(cache, routing)[condition, np.arange(len(condition))]
