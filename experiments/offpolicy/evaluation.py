"""One target policy on one log: estimates where the log identifies it, else a refusal that says what is missing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from offramp.bandits import rows
from offramp.bandits.arms import Arm
from offramp.bandits.rows import FloatArray
from offramp.experiments.offpolicy.estimators import ADAPTIVE, DR, Scores, effective
from offramp.experiments.offpolicy.intervals import Estimate, mean
from offramp.experiments.offpolicy.logs import BoolArray, Log
from offramp.experiments.offpolicy.paths import rule_of
from offramp.experiments.offpolicy.revelation import Logging, Revelation
from offramp.experiments.results import Z95

Mixture = Sequence[tuple[float, Arm]]
LUCKY = 15  # outcomes that chance revealed, below which no interval is given where chance is needed
OUTLYING = 4.0  # standard errors by which the mean weight may miss 1
DRIFTING = 4.0  # standard errors between the two halves of a log


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a log says of a target policy.

    Parameters
    ----------
    requests
        n, how many the log holds.
    used
        On how many of them the target's outcome could have been revealed, whatever the sample.
    estimates
        By the name of the estimator; empty where refused.
    refusal
        Why there are none, and what would change that; "" where there are.
    lowest, highest
        Ends of an interval that holds in any case: the reward where it shows, and the least and the most that it can
        have been elsewhere, with 95 % of the error of the mean at either end.
    shown
        Share of requests on which the target's reward shows.
    naive
        Mean reward where it shows: biased, for comparison.
    ess
        Effective sample size.
    largest
        Largest weight.
    mean_weight
        Mean weight, 1 in the long run.
    gain
        Doubly robust estimate of the target's reward minus that of what was played.
    drift
        Standard errors between the doubly robust estimates of both halves of the log.

    """

    requests: int
    used: int
    lowest: float
    highest: float
    shown: float
    naive: float
    estimates: dict[str, Estimate] = field(default_factory=dict)
    refusal: str = ""
    ess: float = 0.0
    largest: float = math.nan
    mean_weight: float = math.nan
    gain: Estimate | None = None
    drift: float = math.nan

    @property
    def best(self) -> Estimate | None:
        """Adaptive DR where the log allows it and does not drift, else DR; None where refused."""
        name = ADAPTIVE if ADAPTIVE in self.estimates and not abs(self.drift) > DRIFTING else DR
        return self.estimates.get(name)


def evaluate(
    mixture: Mixture, log: Log, *, logging: Logging | None = None, left_out: float = 0.05, half: float = 0.02
) -> Evaluation:
    """Evaluate a stationary target: one rule, or rules drawn with fixed shares.

    Parameters
    ----------
    mixture
        (share, rule) of each; shares sum to 1.
    log
        The log.
    logging
        Its probabilities, where they are known already.
    left_out
        Share of requests that may be left out since they could not reveal the target's outcome, in [0, 1).
    half
        Half-width of an interval that a refusal says how to reach, > 0.

    Raises
    ------
    ValueError
        The mixture is none, or plays what the log's table of exits does not have.

    """
    shares = [share for share, _ in mixture]
    if not shares or not all(share > 0.0 for share in shares) or not abs(sum(shares) - 1.0) <= 1e-9:
        raise ValueError(f"shares are {shares}, allowed are numbers > 0 that sum to 1")
    for name, value, allowed, fits in (
        ("left_out", left_out, "a number in [0, 1)", 0.0 <= left_out < 1.0),
        ("half", half, "a finite number > 0", 0.0 < half < math.inf),
    ):
        if not fits:
            raise ValueError(f"{name} is {value}, allowed is {allowed}")
    rules = [(share, rule_of(arm, log.exits)) for share, arm in mixture]
    logging = logging or Logging(log)
    found = [logging.of(rule) for _, rule in rules]
    low = sum(s * one.low for (s, _), one in zip(rules, found, strict=True))
    high = sum(s * one.high for (s, _), one in zip(rules, found, strict=True))
    known = np.logical_and.reduce([one.known for one in found])
    able = np.minimum.reduce([one.least for one in found]) > 0.0
    offered = np.isfinite(low)
    ends = [mean(np.asarray(end)[offered]) if offered.any() else None for end in (low, high)]
    facts = {
        "requests": len(log),
        "used": int(able.sum()),
        "lowest": ends[0].low if ends[0] is not None and offered.all() else -math.inf,
        "highest": ends[1].high if ends[1] is not None else -math.inf,
        "shown": float(known.mean()),
        "naive": float(np.asarray(low)[known].mean()) if known.any() else math.nan,
    }
    refusal = _not_offered(mixture, log, np.asarray(low)) or _missing(found, log, able, known, left_out, half)
    if refusal:
        return Evaluation(**facts, refusal=refusal)  # type: ignore[arg-type]
    scores = Scores.of(rules, _part(log, able), [_part_of(one, able) for one in found])
    weight = scores.weight
    facts |= {"ess": effective(weight), "largest": float(weight.max()), "mean_weight": float(weight.mean())}
    refusal = _too_few(found, able, known) or _not_its_own(weight)
    if refusal:
        return Evaluation(**facts, refusal=refusal)  # type: ignore[arg-type]
    middle = len(scores.dr) // 2
    halves = mean(scores.dr[:middle]), mean(scores.dr[middle:])
    spread = math.hypot(halves[0].error, halves[1].error)
    return Evaluation(
        **facts,  # type: ignore[arg-type]
        estimates=scores.estimates(),
        gain=mean(scores.dr - log.reward[able]),
        drift=(halves[1].value - halves[0].value) / spread if spread > 0.0 else 0.0,
    )


def _part(log: Log, able: BoolArray) -> Log:
    chance = None if log.chance is None else log.chance[able]
    return Log(**(vars(log) | {"decision": log.decision[able], "observation": log.observation[able], "chance": chance}))


def _part_of(one: Revelation, able: BoolArray) -> Revelation:
    return Revelation(**{k: part[able] if isinstance(part, np.ndarray) else part for k, part in vars(one).items()})


def _not_offered(mixture: Mixture, log: Log, low: FloatArray) -> str:
    never = ~np.isfinite(low)
    if not never.any():
        return ""
    at = rows.offload_cost_at(log.exits)
    cuts = sorted({arm.cut for _, arm in mixture if (log.decision[:, at + arm.cut] == math.inf).any()})
    return (
        f"offloading from cut {', '.join(map(str, cuts))} was not offered (quoted at +inf) on {never.mean():.1%} of "
        "the requests, where the target would or might have offloaded: it has no finite value on this log"
    )


def _missing(
    found: Sequence[Revelation], log: Log, able: BoolArray, known: BoolArray, left_out: float, half: float
) -> str:
    """Why too many requests could not reveal the target's outcome, and what would."""
    n, out = len(log), 1.0 - float(able.mean())
    if out <= left_out:
        return ""
    audited = np.minimum.reduce([one.audited for one in found]) > 0.0
    hidden = ~able & ~known
    width = np.max([one.high - one.low for one in found], axis=0)[hidden]
    lacking = float(hidden.mean())
    spread = float((width**2).mean()) / 12.0 if hidden.any() else 0.0  # of a number of which its range is all we know
    of_known = float(np.max([one.low[known].var() for one in found])) if known.any() else 1.0 / 12.0
    said = (
        f"on {out:.1%} of the requests nothing that could have been decided was sure to reveal the target's reward "
        f"(allowed are {left_out:.0%}); on {lacking:.1%} of all it does not show"
    )
    if any(one.scarcity is None for one in found):
        return f"{said}: what was drawn counts by its own plays, and the target was hardly drawn; {log.why}"
    if audited.mean() >= 1.0 - left_out:
        hint = _rate(n, lacking, spread, of_known, half, "audits")
        return f"{said}: the cloud's answer was hidden wherever a threshold let the edge answer; {hint}"
    draws = "plays of the target, or of what reveals as much, drawn by chance"
    hint = _rate(n, 1.0, spread + of_known, of_known, half, draws)
    return (
        f"{said}: the edge stopped before an exit that the target needs, or had the whole network, and no audit shows "
        f"more; {hint}"
    )


def _rate(n: int, lacking: float, spread: float, of_known: float, half: float, what: str) -> str:
    """Which rate of what, over as many requests as the log has, would give an interval of this half-width."""
    error = n * (half / Z95) ** 2
    room = error - of_known
    rate = lacking * spread / (room + lacking * spread) if room > 0.0 else math.inf
    if rate < 1.0:
        return f"with {what} on about {max(rate, LUCKY / n):.2%} of them, {n:,} requests would tell it to ±{half:g}"
    needed = math.ceil((of_known + lacking * spread * 9.0) * (Z95 / half) ** 2)  # at a rate of a tenth
    return f"with {what} on 10 % of them, about {needed:,} requests would tell it to ±{half:g}"


def _too_few(found: Sequence[Revelation], able: BoolArray, known: BoolArray) -> str:
    if known[able].all():
        return ""
    least = min(int((one.weight[able] > 1.0 + 1e-9).sum()) for one in found if not one.known[able].all())
    if least >= LUCKY:
        return ""
    return (
        f"{least} outcomes were revealed by chance, allowed are {LUCKY} or more: an interval from fewer is not to be "
        "trusted; more requests, more audits or more exploration would give it"
    )


def _not_its_own(weight: FloatArray) -> str:
    found = mean(weight)
    if abs(found.value - 1.0) <= OUTLYING * found.error + 1e-9:
        return ""
    return (
        f"the weights have a mean of {found.value:.3f}, and should have 1 ± {OUTLYING * found.error:.3f}: the "
        "probabilities that the log states are not those that it was made with, or the target was never likely at all"
    )
