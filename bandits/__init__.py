"""Decides and values: policies under one contract, the engine that serves them, and the loop that plays them.

A `Quote` (prices, known before acting) goes in, a `Decision` (cut and thresholds) comes out, and an `Observation` (the
confidences that it revealed) comes back.  No label reaches a policy: only the scorer of the loop reads one.
"""

from offramp.bandits.adaee import AdaEE
from offramp.bandits.arms import Arm, Arms
from offramp.bandits.conformal_floor import ConformalFloor
from offramp.bandits.contract import ContractError, Decision, Observation, Quote
from offramp.bandits.costs import MacsAndBytes, PaperUnits, PriceList, Profile
from offramp.bandits.engine import Engine
from offramp.bandits.fixed import FinalExit, Fixed, OffloadFirst, SendInput
from offramp.bandits.isplitee import ISplitEE
from offramp.bandits.policy import Kernels, Policy
from offramp.bandits.random_arm import RandomArm
from offramp.bandits.splitee import SplitEE
from offramp.bandits.splitee_s import SplitEES
from offramp.bandits.ucb1 import UCB1

__all__ = [
    "UCB1",
    "AdaEE",
    "Arm",
    "Arms",
    "ConformalFloor",
    "ContractError",
    "Decision",
    "Engine",
    "FinalExit",
    "Fixed",
    "ISplitEE",
    "Kernels",
    "MacsAndBytes",
    "Observation",
    "OffloadFirst",
    "PaperUnits",
    "Policy",
    "PriceList",
    "Profile",
    "Quote",
    "RandomArm",
    "SendInput",
    "SplitEE",
    "SplitEES",
]
