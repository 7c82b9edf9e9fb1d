"""A learner replayed over a log by rejection: it lives through those requests on which the log did what it would do."""

from dataclasses import dataclass

import numpy as np

from offramp.bandits.contract import Decision, Observation
from offramp.bandits.durable.follower import Follower
from offramp.bandits.engine import DEFAULT
from offramp.bandits.policy import Policy, needs_oracle
from offramp.bandits.rows import AUDIT, CUT, P_ACTION, FloatArray, thresholds_at
from offramp.environments.rounds import rules_of
from offramp.experiments.offpolicy.intervals import Estimate, mean
from offramp.experiments.offpolicy.logs import Log

ENOUGH = 30  # requests that a learner should live through


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a learner would have earned over a stream of `accepted` requests.

    Parameters
    ----------
    requests, accepted
        Of the log; what the learner lived through.
    estimate
        Mean reward; its interval speaks of this one life, not of others with other samples.  None where refused.
    refusal
        Why there is none.

    """

    requests: int
    accepted: int = 0
    estimate: Estimate | None = None
    refusal: str = ""


def replayed(policy: Policy, log: Log, *, seed: int = 0) -> Replayed:
    r"""Replay a learner.

    Parameters
    ----------
    policy
        The learner; it plays arms of the log's table.
    log
        The log.
    seed
        Of the learner's randomness and of what is accepted.

    Notes
    -----
    Li, Chu, Langford, Wang (WSDM 2011), with unequal probabilities as in rejection sampling: a request is accepted if
    the log played what the learner chooses, with probability :math:`p_{min} / p_t`.  Each request is then accepted with
    probability :math:`p_{min}` whatever the learner chooses, and what it lives through is a stream like the log's, only
    shorter; in a stream that drifts, a faster one.  That needs all rules of the learner to be drawn by chance
    throughout.  It is not defined for a log of certain decisions, for rules outside the table that the log draws from
    (`ChainUCB` makes its own), or for audits that the log did not carry out; and what revelation tells of rules that
    were not played is of no use here, since which rule was revealed depends on the sample.

    """
    n, name = len(log), type(policy).__name__
    arms = log.arms
    if arms is None or log.chance is None or log.rules is None:
        return Replayed(requests=n, refusal=f"{name} learns, and is replayed over what was drawn by chance: {log.why}")
    if getattr(policy, "beyond_table", False) or needs_oracle(policy):
        return Replayed(requests=n, refusal=f"{name} plays rules, or reads facts, that no log of arms holds")
    every = {tuple(rule): k for k, rule in enumerate(log.rules)}
    mine = [every.get(tuple(rules_of(arms)[arms.table.index(arm)])) for arm in policy.plays(arms)]
    if None in mine:
        arm = policy.plays(arms)[mine.index(None)]
        return Replayed(requests=n, refusal=f"{name} plays {arm}, which the log never draws")
    chance = log.chance[:, mine].min(axis=1)  # type: ignore[index]
    open_ = np.flatnonzero(chance > 0.0)
    floor = float(chance[open_].min()) if len(open_) else 0.0
    if len(open_) * floor < ENOUGH:
        return Replayed(
            requests=n,
            refusal=f"{name} would live through about {len(open_) * floor:.1f} of {n:,} requests, allowed are {ENOUGH} "
            f"or more: its least likely rule was drawn with a probability of {floor:.2g}",
        )
    engine = Follower(policy, arms=arms, seed=seed, features=log.features)
    lots = np.random.default_rng(np.random.SeedSequence((seed, 3))).random(n)
    earned, accepted = log.reward, []
    for t in open_.tolist():
        row = log.decision[t]
        logged = Decision(row, 0, DEFAULT)
        quote, context = logged.quote, logged.context if log.features else None
        chosen = engine.preview(quote, context)
        if chosen[AUDIT] == 1.0:
            return Replayed(requests=n, refusal=f"{name} audits, and the log did not")
        if lots[t] * row[P_ACTION] < floor and _same(chosen, row, log.exits):
            seen = Observation.of(log.observation[t])
            engine.update(engine.decide(quote, context), seen)
            accepted.append(t)
    if len(accepted) < 2:
        return Replayed(requests=n, accepted=len(accepted), refusal=f"{name} lived through {len(accepted)} requests")
    return Replayed(requests=n, accepted=len(accepted), estimate=mean(earned[accepted]))


def _same(a: FloatArray, b: FloatArray, exits: int) -> bool:
    at = thresholds_at(exits)
    return bool(a[CUT] == b[CUT] and (a[at : at + exits] == b[at : at + exits]).all())
