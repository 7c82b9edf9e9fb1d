"""Who plays under a deadline: cascades at a fixed threshold, the policies of this literature, and the trivial ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from offramp.bandits import Arms, CeeBERT, FinalExit, Policy, SendInput
from offramp.experiments.joint_policy.contenders import CONTENDERS

TUNED_ON = "mobilenet_v2_cifar10"
CASCADE, JOINT, FREE = "cascade", "joint", "joint_input"
# Keys of the study -> keys of `offramp joint_policy`, whose tuned settings are played.
LEARNERS = {
    "adaee_published": "adaee",
    "adaee": "adaee_aware",
    "splitee_published": "splitee",
    "splitee": "splitee_aware",
    "isplitee_published": "isplitee",
    "isplitee": "isplitee_aware",
    JOINT: "joint",
    FREE: "joint",
}
TITLES = {
    "adaee_published": "AdaEE, price learnt",
    "adaee": "AdaEE, known price",
    "splitee_published": "SplitEE, price learnt",
    "splitee": "SplitEE, known price",
    "isplitee_published": "I-SplitEE, price learnt",
    "isplitee": "I-SplitEE, known price",
    JOINT: "joint policy (ChainUCB), input stays",
    FREE: "joint policy (ChainUCB), may send the input",
    "final_exit": "final exit on the edge",
    "send_input": "send the input",
}


@dataclass(frozen=True, kw_only=True)
class Player:
    """One entry of the study: its title, its policy, whether it may send the input, and its table; None = the grid."""

    title: str
    policy: Policy
    sends_input: bool = False
    arms: Arms | None = None


def cascade(exits: int, cut: int, target: float) -> Player:
    """Exits 1..k in turn, the first whose confidence reaches p_tar answers; what none is sure of is sent from exit k.

    Parameters
    ----------
    exits
        Exits L of the network.
    cut
        k, in 1..L-1.
    target
        p_tar in (0, 1), the same at every exit.

    Examples
    --------
    >>> cascade(4, 3, 0.8).arms.table
    (Arm(cut=3, threshold=0.8, early=(0.8, 0.8)),)

    """
    if not (isinstance(cut, int) and 1 <= cut < exits):
        raise ValueError(f"cut is {cut!r}, allowed is a whole number in 1..{exits - 1}")
    if not 0.0 < target < 1.0:
        raise ValueError(f"target is {target}, allowed is a number in (0, 1)")
    arms = Arms.cascades(exits=exits, at=range(1, cut + 1), thresholds=(target,))
    # A policy over vectors of thresholds that has a single one to play.
    return Player(title=f"cascade of {cut}, p_tar = {target:g}", policy=CeeBERT(cut=cut), arms=arms)


def players(exits: int, tuned: Mapping[str, Any], *, cut: int, target: float) -> dict[str, Player]:
    """All players by key.

    Parameters
    ----------
    exits
        Exits L of the network.
    tuned
        What `offramp joint_policy` chose, by its keys: settings of another network, nothing is tuned here.
    cut, target
        The cascade that plays beside them.

    """
    made = {CASCADE: cascade(exits, cut, target)}
    for key, name in LEARNERS.items():
        chosen = tuned.get(name, {}).get("chosen", {})
        policy = CONTENDERS[name].build(CONTENDERS[name].nearest(chosen, exits), exits)
        made[key] = Player(title=TITLES[key], policy=policy, sends_input=key == FREE)
    made["final_exit"] = Player(title=TITLES["final_exit"], policy=FinalExit())
    made["send_input"] = Player(title=TITLES["send_input"], policy=SendInput(), sends_input=True)
    return made
