"""A price list given cut by cut, for networks and links whose prices were measured elsewhere."""

from dataclasses import dataclass

import numpy as np

from offramp.bandits.contract import Quote
from offramp.bandits.costs import EVALUATE, Profile
from offramp.bandits.policy import positive


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The price of each cut as it was measured; the link scales the price of communication.

    Parameters
    ----------
    edge
        Edge cost of each cut in cost units, (L + 1,), finite, >= 0; heads are included, whichever are evaluated.
    offload
        Offload cost of each cut over a link of factor 1 in cost units, (L + 1,), >= 0; +inf = not offered.  That of
        cut 0 holds only where the input may be sent; the last is 0, since the last cut sends nothing.
    mu
        Confidence per cost unit, finite, >= 0.

    Raises
    ------
    ValueError
        The lists differ in length, or hold what no price can be.

    Examples
    --------
    >>> from offramp.bandits import Profile
    >>> from offramp.bandits.listed import Listed
    >>> profile = Profile(segment_macs=[5, 5], head_macs=[1, 1], payload_bytes=[3072, 800, 0], layers=[3, 6])
    >>> prices = Listed(edge=[0.0, 0.1, 0.3], offload=[0.5, 0.2, 0.0])
    >>> prices.quote(profile, link=2.0).offload_cost
    array([inf, 0.4, 0. ])

    """

    edge: tuple[float, ...]
    offload: tuple[float, ...]
    mu: float = 1.0

    def __post_init__(self) -> None:
        for name in ("edge", "offload"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        if len(self.edge) != len(self.offload) or len(self.edge) < 2:
            raise ValueError(
                f"edge has {len(self.edge)} prices and offload {len(self.offload)}, allowed are L + 1 of each, L >= 1"
            )
        for i, price in enumerate(self.edge):
            positive(f"edge[{i}]", price)
        for i, price in enumerate(self.offload):
            if not price >= 0.0:
                raise ValueError(f"offload[{i}] is {price}, allowed is a number >= 0, or inf")
        if self.offload[-1] != 0.0:
            raise ValueError(f"offload of the last cut is {self.offload[-1]}, allowed is 0")
        positive("mu", self.mu)

    def quote(
        self, profile: Profile, *, link: float = 1.0, evaluate: str = "prefix", raw_input_allowed: bool = False
    ) -> Quote:
        """Price one request; the profile says no more than how many exits there are."""
        positive("link", link, zero=False)
        if evaluate not in EVALUATE:
            raise ValueError(f"evaluate is {evaluate!r}, allowed are {EVALUATE}")
        if len(self.edge) != profile.exits + 1:
            raise ValueError(f"edge has {len(self.edge)} prices, allowed are {profile.exits + 1} for this network")
        offload = np.array(self.offload) * link
        if not raw_input_allowed:
            offload[0] = np.inf
        return Quote(edge_cost=np.array(self.edge), offload_cost=offload, mu=self.mu)
