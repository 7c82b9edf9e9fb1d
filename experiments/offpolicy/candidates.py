"""What a command line names as a candidate: a rule, a mixture of rules, a policy that never learns, or a learner."""

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from offramp.bandits import FinalExit, Fixed, OffloadFirst, RandomArm, SendInput
from offramp.bandits.arms import Arm, Arms
from offramp.bandits.policy import Policy

ONE_RULE = (FinalExit, Fixed, OffloadFirst, SendInput)
ALLOWED = "allowed is cut@threshold, as 2@0.7, or the name of a policy"
KINDS = f"{ALLOWED}, a list of [share, rule], or a mapping with _target_"
Target = list[tuple[float, Arm]] | Policy


def rule(text: str, exits: int) -> Arm:
    """A rule from `cut@threshold`, or `cut@first:second:...` with one threshold for each exit up to the cut.

    Raises
    ------
    ValueError
        It is no rule for so many exits.

    Examples
    --------
    >>> rule("2@0.7", 3), rule("2@0.9:0.7", 3)
    (Arm(cut=2, threshold=0.7), Arm(cut=2, threshold=0.7, early=(0.9,)))
    >>> rule("3", 3), rule("0", 3)
    (Arm(cut=3, threshold=-inf), Arm(cut=0, threshold=inf))

    """
    name, _, rest = text.partition("@")
    try:
        cut = int(name)
        given = [float(t) for t in rest.split(":")] if rest else []
    except ValueError as error:
        raise ValueError(f"candidate is {text!r}, {ALLOWED}") from error
    if not given:
        given = [math.inf if cut == 0 else -math.inf]
    arm = Arm(cut, given[-1], tuple(given[:-1]))
    return Arms(exits=exits, table=(arm,))[0]


def named(arm: Arm) -> str:
    """The text of a rule.

    Examples
    --------
    >>> named(Arm(2, 0.7, (0.9,))), named(Arm(2, math.inf))
    ('2@0.9:0.7', '2@inf')

    """
    return f"{arm.cut}@{':'.join(f'{t:g}' for t in (*arm.early, arm.threshold))}"


def target(given: Any, arms: Arms) -> Target:
    """What is meant by a text, a list of (share, rule), or a mapping with `_target_`.

    Raises
    ------
    ValueError
        Nothing is.

    """
    if isinstance(given, str) and (given[:1].isdigit()):
        return [(1.0, rule(given, arms.exits))]
    if isinstance(given, int) and not isinstance(given, bool):
        return [(1.0, rule(str(given), arms.exits))]
    if isinstance(given, str):
        found = files("offramp.conf") / "policy" / f"{given}.yaml"
        if not found.is_file():
            raise ValueError(f"candidate is {given!r}, {ALLOWED}")
        given = OmegaConf.create(found.read_text(encoding="utf-8"))
    if isinstance(given, Mapping) or OmegaConf.is_dict(given):
        if "_target_" not in given:
            raise ValueError(f"candidate is {given}, allowed is a mapping that names its class by _target_")
        made = instantiate(given, _convert_="all")
        if not isinstance(made, Policy):
            raise ValueError(f"candidate is {given}, which makes a {type(made).__name__}, allowed is a policy")
        if isinstance(made, ONE_RULE):
            return [(1.0, made.plays(arms)[0])]
        if isinstance(made, RandomArm):
            every = made.plays(arms)
            return [(1.0 / len(every), arm) for arm in every]
        return made
    return _mixture(given, arms.exits)


def _mixture(given: Any, exits: int) -> list[tuple[float, Arm]]:
    pairs = list(given) if isinstance(given, Sequence) else []
    if not pairs or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"candidate is {given!r}, {KINDS}")
    for share, _ in pairs:
        if isinstance(share, bool) or not isinstance(share, (int, float)):
            raise ValueError(f"candidate is {given!r}: share {share!r} is no number, {KINDS}")
    return [(float(share), rule(str(text), exits)) for share, text in pairs]
