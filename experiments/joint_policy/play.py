"""One policy in one world with one seed, in numbers; and the oracles on the same rounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from offramp.bandits import Policy
from offramp.bandits.loop import World as Arrays
from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments import Comparators, World, blocks, rollout
from offramp.environments.regret import bin_values, values
from offramp.experiments.joint_policy.suite import Setting
from offramp.experiments.results import changes

NEAR, CALM = 0.01, 50  # a rule this near to the segment's best, for so many rounds: recovered
POINTS = 25  # of the curve of regret over rounds


def one(policy: Policy, setting: Setting, world: World, arrays: Arrays, *, horizon: int, seed: int) -> dict[str, Any]:
    """Play one run.

    Parameters
    ----------
    policy, setting, world, arrays
        Who plays where; the arrays as `world.arrays` makes them for this policy.
    horizon, seed
        Rounds and seed.

    Returns
    -------
    dict
        regret: dynamic pseudo-regret, the price of audits included (nan where a rule outside the table was played);
        reward, cost, accuracy, agreement, offloads and audits per round; curve: regret at `POINTS` even rounds;
        recovery: rounds after each change, see `recoveries`, in worlds that change
        abruptly.

    """
    at = np.linspace(0, horizon - 1, min(POINTS, horizon)).round().astype(np.int64)
    kept = np.arange(horizon) if setting.abrupt else at  # recoveries need every round
    trace, _ = rollout(
        policy,
        world,
        setting.stream,
        horizon=horizon,
        seed=seed,
        arrays=arrays,
        lateness=setting.lateness,
        checkpoints=kept + 1,
    )
    regret = trace.sums["regret"]
    found: dict[str, Any] = {
        "regret": float(regret[-1]),
        "reward": trace.mean("reward"),
        "cost": float(trace.cost[-1]) / horizon,
        "accuracy": trace.mean("correct"),
        "agreement": trace.mean("agreement"),
        "offloads": trace.mean("offloads"),
        "audits": trace.mean("audits"),
        "curve": regret[np.searchsorted(kept, at)].tolist(),
    }
    if setting.abrupt:
        audited = np.diff(trace.sums["audits"], prepend=0.0) > 0.0
        mu = float(arrays.quotes[0, 1])
        paid = mu * np.where(audited, np.diff(trace.sums["offload_cost"], prepend=0.0), 0.0)
        # Regret holds what audits pay; here the rule alone counts.
        found["recovery"] = recoveries(np.diff(regret, prepend=0.0) - paid, changes(setting.stream, horizon, seed))
    return found


def recoveries(gaps: FloatArray, at: IntArray) -> list[float]:
    """Rounds after each change until the played rule stays near the segment's best.

    Parameters
    ----------
    gaps
        Population gap of the rule that was played in each round, (T,).
    at
        First rounds of the segments after the first.

    Returns
    -------
    list
        For each change the rounds until `CALM` rounds follow whose gaps are all at most `NEAR`; the length of the
        segment where that never happens within it.

    Examples
    --------
    >>> recoveries(np.array([0.0] * 60 + [0.2] * 7 + [0.0] * 60), np.array([60]))
    [7.0]

    """
    taken: list[float] = []
    if len(at) == 0:
        return taken
    for start, end in zip(at, np.append(at[1:], len(gaps)), strict=True):
        near = (gaps[start:end] <= NEAR + 1e-9).astype(np.int64)  # a running sum's differences are that exact
        run = np.convolve(near, np.ones(CALM, dtype=np.int64), mode="valid") if len(near) >= CALM else np.zeros(0)
        calm = np.flatnonzero(run == CALM)
        taken.append(float(calm[0]) if len(calm) else float(end - start))
    return taken


def oracles(setting: Setting, world: World, arrays: Arrays, *, horizon: int, seed: int) -> dict[str, float]:
    """What the comparators of one run are worth against the best arm of each segment.

    Returns
    -------
    dict
        static: pseudo-regret of the best single arm in hindsight; bin_rule: that of the best rule for each bin of
        confidence, segment by segment (below 0 where thresholds leave something on the table); clairvoyant: realised
        reward of the best arm of each segment minus that of the best arm of each sample (below 0); dynamic: realised
        reward of the best arm of each segment, for the realised regret of a policy.

    """
    rounds = list(blocks(setting.stream, samples=len(arrays.label), horizon=horizon, seed=seed))
    found = Comparators(arrays, world.arms, rounds, np.array([horizon]))
    value = values(arrays.confidence, arrays.quotes, world.arms, arrays.options)
    links = value.shape[1]
    places = np.concatenate([b.condition * links + b.price for b in rounds])
    visits = np.bincount(places, minlength=value.shape[0] * links)
    came = visits > 0
    single = [not arm.early for arm in world.arms.table]
    best = value[..., single].max(axis=2).ravel()
    binned = bin_values(arrays.confidence, arrays.quotes, world.arms.exits).ravel()
    dynamic = float(visits[came] @ best[came])
    return {
        "static": dynamic - float(found.static[-1][single].max()),
        "bin_rule": dynamic - float(visits[came] @ binned[came]),
        "clairvoyant": float(found.dynamic[-1] - found.clairvoyant[-1]),
        "dynamic": float(found.dynamic[-1]),
    }


def gathered(runs: Sequence[dict[str, Any]], dynamic: Sequence[float], horizon: int) -> dict[str, Any]:
    """The runs of one policy in one world over all seeds, as they are recorded.

    Where a rule outside the table was played, the population value of what was played is not known: the realised regret
    stands in its place, and `realised` says so.
    """
    realised = [d - horizon * run["reward"] for d, run in zip(dynamic, runs, strict=True)]
    outside = any(np.isnan(run["regret"]) for run in runs)
    found: dict[str, Any] = {
        "regret": realised if outside else [run["regret"] for run in runs],
        "realised_regret": realised,
        "realised": outside,
        "curve": np.mean([run["curve"] for run in runs], axis=0).tolist(),
        "curve_sd": np.std([run["curve"] for run in runs], axis=0, ddof=min(1, len(runs) - 1)).tolist(),
    }
    for name in ("cost", "accuracy", "agreement", "offloads", "audits"):
        found[name] = [run[name] for run in runs]
    if "recovery" in runs[0]:
        found["recovery"] = [x for run in runs for x in run["recovery"]]
    return found
