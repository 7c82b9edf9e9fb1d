"""SplitEE: UCB over the split, at one fixed threshold, learning from the arm that was played."""

from dataclasses import dataclass

from offramp.bandits import ucb1, ucb1_published
from offramp.bandits.arms import Arm, Arms
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.rows import FloatArray


def splits(arms: Arms, threshold: float) -> list[Arm]:
    """The arms of a split-layer policy: every cut that computes, all at one threshold; the last exit always answers."""
    offered = sorted({a.threshold for a in arms.single if 0 < a.cut < arms.exits})
    if threshold not in offered:
        raise ValueError(f"threshold {threshold} is not in the table of arms, allowed are {offered}")
    return [a for a in arms.single if a.cut == arms.exits or (a.cut > 0 and a.threshold == threshold)]


@dataclass(frozen=True, kw_only=True)
class SplitEE:
    r"""A bandit over splitting layers.

    Arm i computes up to exit i, answers there if :math:`C_i \ge \alpha`, else offloads.  Its reward is
    :math:`C_i - \mu\gamma_i` or :math:`C_L - \mu(\gamma_i + o)`; each arm once, then the largest
    :math:`\hat r_i + \beta\sqrt{\ln t / N_i}`.

    Parameters
    ----------
    threshold
        :math:`\alpha`, the one threshold, which must be in the table of arms.  .70 to .85 in the paper.
    beta
        Width of the bonus, >= 0; 1 in the released code.
    known_costs
        True: learn confidence and offload share, subtract the price as quoted.  False, as published: learn the reward
        whole.

    Examples
    --------
    >>> from offramp.bandits import Arms, SplitEE
    >>> [arm.cut for arm in SplitEE(threshold=0.7).plays(Arms.grid(exits=4))]
    [1, 2, 3, 4]

    Notes
    -----
    Bajpai, Trivedi, Yadav, Hanawal, SplitEE (arXiv 2309.09195).  It is `UCB1` on these arms, and shares its kernels.
    The released code plays its first samples twice, counts the logarithm from the thirteenth round, reports a cost of
    .8 per layer and .2 per exit head while its reward pays 1 per layer, and returns the arm with the largest *sum* of
    rewards as the best.  None of that is kept: the price list alone says what a layer and a head cost.

    """

    threshold: float = 0.7
    beta: float = 1.0
    known_costs: bool = True

    def __post_init__(self) -> None:
        positive("beta", self.beta)

    @property
    def kernels(self) -> Kernels:
        """Those of UCB1."""
        return ucb1.KERNELS if self.known_costs else ucb1_published.KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """Every cut but the input, at the one threshold."""
        return splits(arms, self.threshold)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No arm pulled."""
        made = ucb1.initial if self.known_costs else ucb1_published.initial
        return made(arms, self.plays(arms), features, self.beta)
