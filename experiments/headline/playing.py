"""Who plays for the headline, in which system, and what each run comes to."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig

from offramp.bandits import Arms, FinalExit, Fixed, ISplitEE, MacsAndBytes, OffloadFirst, Policy, SendInput
from offramp.bandits.loop import World as Arrays
from offramp.bandits.rows import FloatArray
from offramp.environments import Abrupt, ConfidenceCache, World, rollout
from offramp.experiments.expert_branches.fronts import at_price
from offramp.experiments.expert_branches.systems import (
    CALIBRATION,
    EXPERTS,
    PRISTINE,
    SYSTEMS,
    System,
    answers_of,
)
from offramp.experiments.headline.prices import At

OURS, STAYS, ISPLITEE, BEST = "joint policy", "joint policy, image stays", "I-SplitEE", "best exit"
WHOLE, SEND, FIRST, PLAIN = "final exit", "send the input", "offload after exit 1", "final exit, plain network"
PLAYERS = (OURS, STAYS, ISPLITEE, BEST, WHOLE, SEND, FIRST, PLAIN)
Caches = dict[str, ConfidenceCache]
Runs = dict[str, FloatArray]  # accuracy, cost, ... -> (R,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Ground:
    """One system over one stream: its world and what the loop plays, at whatever prices."""

    world: World
    arrays: Arrays
    stream: Abrupt

    @classmethod
    def of(cls, system: System, caches: Caches, stream: Abrupt, cfg: DictConfig, *, send: bool = True) -> "Ground":
        """The ground of a system; `send` = the image itself may be sent."""
        cache = caches[system.calibration]
        arms = Arms.grid(exits=len(cache.exits), thresholds=list(cfg.thresholds), raw_input_allowed=send)
        world = World(
            cache=cache,
            prices=MacsAndBytes(),
            arms=arms,
            raw_input_allowed=send,
            routing=system.routing,
            fallback=system.fallback,
        )
        return cls(world=world, arrays=world.arrays(stream.conditions, stream.links), stream=stream)

    def at(self, prices: At, mu: float) -> Arrays:
        """The arrays under a price list at an exchange rate."""
        return at_price(self.arrays, self.world, prices(mu), self.stream.links)


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """All seeds of some players: what the pool runs."""

    horizon: int
    seeds: Sequence[int]
    pool: ThreadPoolExecutor
    played: Callable[[], None]

    def play(self, jobs: Mapping[str, tuple[Policy, Ground, Arrays]]) -> dict[str, Runs]:
        """Play every job with every seed."""

        def one(policy: Policy, ground: Ground, arrays: Arrays, seed: int) -> list[float]:
            trace, _ = rollout(policy, ground.world, ground.stream, horizon=self.horizon, seed=seed, arrays=arrays)
            self.played()
            names = ("correct", "edge_cost", "offload_cost", "offloads", "bytes")
            return [trace.mean(name) for name in names]

        waiting = {k: [self.pool.submit(one, *job, seed) for seed in self.seeds] for k, job in jobs.items()}
        found = {}
        for key, runs in waiting.items():
            right, edge, sent, offloads, n_bytes = np.array([run.result() for run in runs]).T
            found[key] = {
                "accuracy": right,
                "cost": edge + sent,
                "edge_cost": edge,
                "offloads": offloads,
                "bytes": n_bytes,
            }
        return found


def validation(cache: ConfidenceCache) -> Caches:
    """The validation split by calibration, as `views` gives the test split."""
    part = cache.part("validation")
    return {name: part.calibrated(name) for name in ("raw", CALIBRATION)}


def grounds(caches: Caches, stream: Abrupt, cfg: DictConfig) -> dict[str, Ground]:
    """Experts with and without the right to send the image, and the plain network."""
    experts, plain = SYSTEMS[EXPERTS], SYSTEMS[PRISTINE]
    return {
        EXPERTS: Ground.of(experts, caches, stream, cfg),
        STAYS: Ground.of(experts, caches, stream, cfg, send=False),
        PRISTINE: Ground.of(plain, caches, stream, cfg),
    }


def players(cfg: DictConfig, on: dict[str, Ground], prices: At, best: int) -> dict[str, tuple[Policy, Ground, Arrays]]:
    """Everybody of the headline at the stated mu; `best` is the exit that validation images prefer."""
    ours: Policy = instantiate(cfg.policy)
    at = {name: ground.at(prices, cfg.mu) for name, ground in on.items()}
    same: dict[str, Policy] = {
        OURS: ours,
        ISPLITEE: ISplitEE(threshold=cfg.isplitee_threshold),
        BEST: Fixed(cut=best, threshold=-np.inf),
        WHOLE: FinalExit(),
        SEND: SendInput(),
        FIRST: OffloadFirst(),
    }
    jobs = {name: (policy, on[EXPERTS], at[EXPERTS]) for name, policy in same.items()}
    jobs[STAYS] = (ours, on[STAYS], at[STAYS])
    jobs[PLAIN] = (FinalExit(), on[PRISTINE], at[PRISTINE])
    return {name: jobs[name] for name in PLAYERS}


def exits_over(caches: Caches, stream: Abrupt, name: str) -> FloatArray:
    """Accuracy of each exit of a system over all segments of a stream alike, (L,)."""
    cache = caches["raw"]
    at = [cache.condition(c) for c, _ in stream.segments]
    right: FloatArray = answers_of(SYSTEMS[name], caches).correct.mean(axis=1)[at].mean(axis=0)
    return right


def chosen_mu(cfg: DictConfig, ground: Ground, prices: At, mus: Sequence[float], table: Table) -> float:
    """The largest mu at which ours is as accurate as the whole network, as the images of the ground say.

    Where it is so at none, the mu at which it is the most accurate, the largest among equals.
    """
    ours: Policy = instantiate(cfg.policy)
    jobs: dict[str, tuple[Policy, Ground, Arrays]] = {
        f"{mu:g}": (ours, ground, ground.at(prices, mu)) for mu in sorted(mus)
    }
    jobs[WHOLE] = (FinalExit(), ground, ground.at(prices, 0.0))
    found = {name: float(runs["accuracy"].mean()) for name, runs in table.play(jobs).items()}
    wanted = found.pop(WHOLE)
    enough = [name for name, accuracy in found.items() if accuracy >= wanted]
    return float(enough[-1] if enough else max(reversed(found), key=lambda name: found[name]))
