"""Rows about worlds in time: the joint policy with physical prices, a trace of a link, and feedback when it is back."""

from collections.abc import Iterator

from row import Row, of

from offramp.bandits import UCB1, Arms, ChainUCB, FinalExit, Policy
from offramp.environments import (
    Abrupt,
    ConfidenceCache,
    DeviceProfile,
    LinkTrace,
    PayloadTable,
    Physical,
    Poisson,
    TimedWorld,
    Weights,
    World,
    rollout_timed,
)

NAME, TRACE = "mobilenet_v2_imagenette", "4g/bus_0001"
ROUNDS, REPEATS = 200_000, 9


def world(slower: float = 20.0) -> tuple[TimedWorld, Abrupt]:
    """Photographs on a device so many times as slow as the core that was measured, over a driving trace."""
    cache = ConfidenceCache.embedded(NAME).part("test")
    core = DeviceProfile.embedded(NAME)
    inner = World(
        cache=cache,
        prices=Physical(edge=core.scaled(slower), cloud=core, weights=Weights(second=2.0)),
        arms=Arms.grid(exits=len(cache.exits), raw_input_allowed=True),
        raw_input_allowed=True,
    )
    stream = Abrupt(segments=tuple((condition.name, 1.0) for condition in cache.conditions), length=2_000)
    table = PayloadTable.embedded(NAME)
    link, arrivals = LinkTrace.embedded(TRACE), Poisson(per_second=8.0)
    return TimedWorld(world=inner, link=link, payloads=table, arrivals=arrivals, buffer=16), stream


def timed(quick: bool) -> Iterator[Row]:
    """The joint policy in a world in time: physical quotes with codecs, a trace of a link, late feedback."""
    made, stream = world()
    facts = made.facts(stream.conditions)
    rounds = ROUNDS // 20 if quick else ROUNDS

    def run(policy: Policy) -> float:
        journal, _ = rollout_timed(policy, made, stream, horizon=rounds, seed=0, facts=facts)
        return journal.seconds / rounds * 1e6

    policies = (ChainUCB(), UCB1(), FinalExit())
    taken = [[run(policy) for policy in policies] for _ in range(REPEATS)]
    variants = facts.expected.shape[1]
    yield of(
        f"rollout of ChainUCB in time, 7 exits, {variants} (split, codec) pairs, a round",
        [row[0] for row in taken],
        "µs",
        target=2.0,
    )
    yield of("· UCB1 in the same run", [row[1] for row in taken], "µs")
    yield of("· the whole network on the edge in the same run: the world alone", [row[2] for row in taken], "µs")
