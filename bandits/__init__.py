"""Decides and values: policies under one contract, the engine that serves them, and the loop that plays them.

A `Quote` (prices, known before acting) goes in, a `Decision` (cut and thresholds) comes out, and an `Observation` (the
confidences that it revealed) comes back.  No label reaches a policy: only the scorer of the loop reads one.
"""

from offramp.bandits.adaee import AdaEE
from offramp.bandits.adwin import ADWIN
from offramp.bandits.agreement_floor import AgreementFloor, agreement
from offramp.bandits.arms import Arm, Arms
from offramp.bandits.bayes_ucb import BayesUCB
from offramp.bandits.beta_thompson import BetaThompson
from offramp.bandits.budget import Budget, spending
from offramp.bandits.ceebert import CeeBERT
from offramp.bandits.chain_ucb import ChainUCB
from offramp.bandits.conformal_floor import ConformalFloor
from offramp.bandits.contract import ContractError, Decision, Observation, Quote
from offramp.bandits.costs import MacsAndBytes, PaperUnits, PriceList, Profile
from offramp.bandits.cusum import CUSUM
from offramp.bandits.detectors import Detector
from offramp.bandits.discounted import Discounted
from offramp.bandits.discounted_ucb import DiscountedUCB
from offramp.bandits.engine import Engine
from offramp.bandits.epsilon_greedy import EpsilonGreedy
from offramp.bandits.exp3 import EXP3
from offramp.bandits.exp3_ix import Exp3IX
from offramp.bandits.exp3_s import EXP3S
from offramp.bandits.fixed import FinalExit, Fixed, OffloadFirst, SendInput
from offramp.bandits.glr import GLR
from offramp.bandits.hedge_hi import HedgeHI
from offramp.bandits.hi_lcb import HILCBLite
from offramp.bandits.isplitee import ISplitEE
from offramp.bandits.kl_ucb import KLUCB
from offramp.bandits.lin_ucb import LinUCB
from offramp.bandits.listed import Listed
from offramp.bandits.mu_lin_ucb import MuLinUCB
from offramp.bandits.page_hinkley import PageHinkley
from offramp.bandits.per_context import PerContext
from offramp.bandits.policy import Kernels, Policy
from offramp.bandits.random_arm import RandomArm
from offramp.bandits.restarting import Restarting
from offramp.bandits.sliding_window import SlidingWindow
from offramp.bandits.sliding_window_ucb import SlidingWindowUCB
from offramp.bandits.splitee import SplitEE
from offramp.bandits.splitee_s import SplitEES
from offramp.bandits.thompson import GaussianThompson
from offramp.bandits.ts_n import GridThompson
from offramp.bandits.two_window import TwoWindow
from offramp.bandits.ucb1 import UCB1
from offramp.bandits.ucb_n import OneSidedUCB
from offramp.bandits.ucb_tuned import UCBTuned
from offramp.bandits.ucb_v import UCBV
from offramp.bandits.uee_ucb import UEEUCB, dominance
from offramp.bandits.windowed_erm import WindowedERM

__all__ = [
    "ADWIN",
    "CUSUM",
    "EXP3",
    "EXP3S",
    "GLR",
    "KLUCB",
    "UCB1",
    "UCBV",
    "UEEUCB",
    "AdaEE",
    "AgreementFloor",
    "Arm",
    "Arms",
    "BayesUCB",
    "BetaThompson",
    "Budget",
    "CeeBERT",
    "ChainUCB",
    "ConformalFloor",
    "ContractError",
    "Decision",
    "Detector",
    "Discounted",
    "DiscountedUCB",
    "Engine",
    "EpsilonGreedy",
    "Exp3IX",
    "FinalExit",
    "Fixed",
    "GaussianThompson",
    "GridThompson",
    "HILCBLite",
    "HedgeHI",
    "ISplitEE",
    "Kernels",
    "LinUCB",
    "Listed",
    "MacsAndBytes",
    "MuLinUCB",
    "Observation",
    "OffloadFirst",
    "OneSidedUCB",
    "PageHinkley",
    "PaperUnits",
    "PerContext",
    "Policy",
    "PriceList",
    "Profile",
    "Quote",
    "RandomArm",
    "Restarting",
    "SendInput",
    "SlidingWindow",
    "SlidingWindowUCB",
    "SplitEE",
    "SplitEES",
    "TwoWindow",
    "UCBTuned",
    "WindowedERM",
    "agreement",
    "dominance",
    "spending",
]
