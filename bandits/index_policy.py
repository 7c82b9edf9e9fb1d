"""What the index policies have in common as specs: which arms of the table they play, and who subtracts the price."""

from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms


@dataclass(frozen=True, kw_only=True)
class IndexPolicy:
    """A policy over a part of the table that learns about each arm from its own pulls.

    Parameters
    ----------
    cuts
        Cuts to play, None = all in the table.
    thresholds
        Thresholds to play at cuts that have one, None = all in the table.
    known_costs
        True: learn confidence and offload share, and subtract the price as quoted now.  False, the form in which these
        algorithms were published: learn the reward as a whole, prices included, blind to the quote but for one thing:
        an arm whose offload is not offered (+inf) is passed over, since its reward could never be averaged away.

    """

    cuts: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None
    known_costs: bool = True

    def __post_init__(self) -> None:
        for name in ("cuts", "thresholds"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))

    def plays(self, arms: Arms) -> list[Arm]:
        """The arms with one of the cuts and, below the last cut, one of the thresholds.

        Raises
        ------
        ValueError
            A wanted cut or threshold is in no arm of the table.

        """
        for name, wanted, offered in (
            ("cuts", self.cuts, {a.cut for a in arms.single}),
            ("thresholds", self.thresholds, {a.threshold for a in arms.single}),
        ):
            if wanted is not None and not offered.issuperset(wanted):
                raise ValueError(f"{name} are {wanted}, allowed are {sorted(offered)} as in the table of arms")
        return [
            arm
            for arm in arms.single
            if (self.cuts is None or arm.cut in self.cuts)
            and (self.thresholds is None or arm.cut in (0, arms.exits) or arm.threshold in self.thresholds)
        ]
