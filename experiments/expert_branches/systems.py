"""The systems that are compared: whose exits answer, how their confidences were calibrated, and what they cost."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from omegaconf import DictConfig

from offramp.bandits import AdaEE, Arms, Fixed, ISplitEE, MacsAndBytes, PaperUnits, Policy, Profile
from offramp.bandits.costs import PriceList
from offramp.bandits.rows import FloatArray
from offramp.environments import CacheError, ConfidenceCache, World
from offramp.environments.routing import experts_of

CALIBRATION = "expert_exit"
PRISTINE, PRISTINE_CALIBRATED, EXPERTS = "pristine", "pristine, calibrated", "experts"
ORACLE, EXPERTS_RAW, SUREST = "experts, oracle routing", "experts, uncalibrated", "experts, fallback"


@dataclass(frozen=True, kw_only=True)
class System:
    """Whose exits answer (a routing of `World`), at which temperatures, with which fallback."""

    routing: str | None
    calibration: str
    fallback: str = "none"


SYSTEMS = {
    PRISTINE: System(routing=None, calibration="raw"),
    PRISTINE_CALIBRATED: System(routing=None, calibration=CALIBRATION),
    EXPERTS: System(routing="predicted", calibration=CALIBRATION),
    ORACLE: System(routing="oracle", calibration=CALIBRATION),
    EXPERTS_RAW: System(routing="predicted", calibration="raw"),
    SUREST: System(routing="predicted", calibration=CALIBRATION, fallback="most_confident"),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    """What every exit says about every sample under every condition, from the expert that a system asks.

    Attributes
    ----------
    confidence, correct
        (S, N, L).
    expert
        Who is asked, (S, N).

    """

    confidence: FloatArray
    correct: npt.NDArray[np.bool_]
    expert: npt.NDArray[np.int64]


def views(cache: ConfidenceCache) -> dict[str, ConfidenceCache]:
    """The test split by calibration.

    Raises
    ------
    CacheError
        The cache has one expert only, no router, no temperatures or no profile.

    """
    if len(cache.experts) < 2 or cache.router is None:
        raise CacheError(f"experts are {cache.experts}, allowed are two or more and a router's probabilities of them")
    if CALIBRATION not in cache.calibrations:
        raise CacheError(f"calibrations are {list(cache.calibrations)}, allowed are those with {CALIBRATION!r}")
    if cache.profile is None:
        raise CacheError("profile is missing in this cache: without it no price can be quoted")
    test = cache.part("test")
    return {name: test.calibrated(name) for name in ("raw", CALIBRATION)}


def price_list(name: str, profile: Profile, cfg: DictConfig, mu: float) -> PriceList:
    """One of the two price lists: "paper" or "physical"."""
    if name == "physical":
        return MacsAndBytes(mu=mu)
    return PaperUnits(per_layer=cfg.prices.network / profile.layers[-1], offload=cfg.prices.offload, mu=mu)


PRICES = {"paper": "paper units", "physical": "multiply-accumulates and bytes"}


def make_world(system: System, caches: dict[str, ConfidenceCache], prices: PriceList, thresholds: list[float]) -> World:
    """The world that a system lives in: the image stays on the device, all heads up to the cut are evaluated."""
    cache = caches[system.calibration]
    arms = Arms.grid(exits=len(cache.exits), thresholds=thresholds)
    return World(cache=cache, prices=prices, arms=arms, routing=system.routing, fallback=system.fallback)


def answers_of(system: System, caches: dict[str, ConfidenceCache]) -> Answers:
    """What a system's exits say about each test image under each condition."""
    cache = caches[system.calibration]
    expert = experts_of(cache, system.routing)
    pick = np.arange(len(cache.conditions))[:, None], expert, np.arange(len(cache.label))
    correct = cache.prediction[pick] == cache.label[:, None]
    return Answers(confidence=cache.confidence[pick], correct=correct, expert=expert)


def adaee_cut(cfg: DictConfig, exits: int) -> int:
    """The exit whose threshold AdaEE learns."""
    return int(min(cfg.adaee_cut, exits - 1))


def learners(cfg: DictConfig, cuts: Iterable[int]) -> dict[str, Policy]:
    """The policies whose fronts come from playing at one mu after the other: I-SplitEE, and AdaEE at some exits."""
    made: dict[str, Policy] = {"I-SplitEE": ISplitEE(threshold=cfg.isplitee_threshold)}
    return made | {f"AdaEE at exit {cut}": AdaEE(cut=cut) for cut in cuts}


def rules(arms: Arms) -> dict[str, Policy]:
    """Every arm of the table, held for the whole stream."""
    return {f"exit {arm.cut} from {arm.threshold:g}": Fixed(cut=arm.cut, threshold=arm.threshold) for arm in arms.table}
