"""Price lists: what edge compute and communication cost.  One list prices reward, report and live system."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from offramp.bandits.contract import Quote
from offramp.bandits.policy import positive

EVALUATE = ("own", "prefix")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a network asks of device and link, measured from the network itself by the extractor.

    Parameters
    ----------
    segment_macs
        Multiply-accumulates of each segment for one image, (L,).
    head_macs
        Multiply-accumulates of each exit head for one image, (L,).
    payload_bytes
        Bytes sent when the edge stops at each cut, (L + 1,): the input at cut 0, feature maps between, 0 at cut L.
    layers
        Layers of the backbone passed at each exit, (L,), as the papers count them.
    router_macs
        Multiply-accumulates of what picks the expert, before the first segment; 0 without.

    """

    segment_macs: tuple[int, ...]
    head_macs: tuple[int, ...]
    payload_bytes: tuple[int, ...]
    layers: tuple[int, ...]
    router_macs: int = 0

    def __post_init__(self) -> None:
        for name in ("segment_macs", "head_macs", "payload_bytes", "layers"):
            values = tuple(int(v) for v in getattr(self, name))
            object.__setattr__(self, name, values)
            wanted = self.exits + (name == "payload_bytes")
            if len(values) != wanted or min(values) < 0:
                raise ValueError(f"{name} is {values}, allowed are {wanted} whole numbers >= 0")
        if self.router_macs < 0:
            raise ValueError(f"router_macs is {self.router_macs}, allowed is a whole number >= 0")
        if self.payload_bytes[-1] != 0:
            raise ValueError(f"payload_bytes of the last cut is {self.payload_bytes[-1]}, allowed is 0")

    @property
    def exits(self) -> int:
        """Exits L of the network."""
        return len(self.segment_macs)

    def edge_macs(self, evaluate: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Multiply-accumulates up to each cut, (L + 1,), with the cut's own head or with all heads on the way.

        An input that is sent as it is costs none: who computes on it routes it.
        """
        if evaluate not in EVALUATE:
            raise ValueError(f"evaluate is {evaluate!r}, allowed are {EVALUATE}")
        heads = np.array(self.head_macs, dtype=np.float64)
        spent = np.cumsum(self.segment_macs) + (np.cumsum(heads) if evaluate == "prefix" else heads)
        return np.concatenate([[0.0], spent + self.router_macs])


class PriceList(Protocol):
    """Turns a profile and the state of the link into the quote of one request."""

    def quote(
        self, profile: Profile, *, link: float = 1.0, evaluate: str = "prefix", raw_input_allowed: bool = False
    ) -> Quote:
        """Price one request.

        Parameters
        ----------
        profile
            What the network asks for.
        link
            Factor on the price of communication, > 0; 1 = the link as it was priced.
        evaluate
            Are only the cut's own head ("own") or all heads on the way ("prefix") evaluated?
        raw_input_allowed
            May the input itself be sent?  If not, cut 0 is quoted at +inf.

        """


def _offer(offload: Any, raw_input_allowed: bool) -> Any:
    offload[-1] = 0.0
    if not raw_input_allowed:
        offload[0] = math.inf
    return offload


@dataclass(frozen=True, kw_only=True)
class PaperUnits:
    r"""The papers' prices: so much per layer, one constant for an offload, whatever its size and the link.

    Parameters
    ----------
    per_layer
        :math:`\lambda`, cost of one layer on the edge, exit heads included, in cost units, >= 0.
    offload
        :math:`o`, cost of one offload in cost units, >= 0.
    mu
        :math:`\mu`, confidence per cost unit, >= 0.

    Examples
    --------
    >>> from offramp.bandits import PaperUnits, Profile
    >>> profile = Profile(segment_macs=[5, 5], head_macs=[1, 1], payload_bytes=[3072, 800, 0], layers=[3, 6])
    >>> PaperUnits().quote(profile).edge_cost.round(6)
    array([0. , 0.3, 0.6])

    Notes
    -----
    SplitEE (arXiv 2309.09195), I-SplitEE (arXiv 2401.10541): :math:`\gamma_i = \lambda \ell_i`.  The defaults are
    the constants of I-SplitEE's released code.

    """

    per_layer: float = 0.1
    offload: float = 0.5
    mu: float = 1.0

    def __post_init__(self) -> None:
        for name in ("per_layer", "offload", "mu"):
            positive(name, getattr(self, name))

    def quote(
        self, profile: Profile, *, link: float = 1.0, evaluate: str = "prefix", raw_input_allowed: bool = False
    ) -> Quote:
        """Price one request; the constants hide the link and the heads."""
        edge = np.concatenate([[0.0], self.per_layer * np.array(profile.layers)])
        offload = np.full(profile.exits + 1, self.offload)
        return Quote(edge_cost=edge, offload_cost=_offer(offload, raw_input_allowed), mu=self.mu)


@dataclass(frozen=True, kw_only=True)
class MacsAndBytes:
    """Edge work by multiply-accumulates, an offload by payload bytes times the state of the link.

    Parameters
    ----------
    network
        Cost of the whole backbone with its classifier, without side exits, on the edge, in cost units, >= 0.
    kilobyte
        Cost of sending 1,000 bytes over a link of factor 1, in cost units, >= 0.
    mu
        Confidence per cost unit, >= 0.

    """

    network: float = 0.3
    kilobyte: float = 0.016
    mu: float = 1.0

    def __post_init__(self) -> None:
        for name in ("network", "kilobyte", "mu"):
            positive(name, getattr(self, name))

    def quote(
        self, profile: Profile, *, link: float = 1.0, evaluate: str = "prefix", raw_input_allowed: bool = False
    ) -> Quote:
        """Price one request."""
        positive("link", link, zero=False)
        whole = sum(profile.segment_macs) + profile.head_macs[-1]
        edge = self.network * profile.edge_macs(evaluate) / whole
        offload = self.kilobyte * link * np.array(profile.payload_bytes) / 1000.0
        return Quote(edge_cost=edge, offload_cost=_offer(offload, raw_input_allowed), mu=self.mu)
