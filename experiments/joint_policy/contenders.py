"""Who is compared, and which of their parameters are searched: data, and the same budget for everyone."""

from collections.abc import Mapping
from typing import Any

from offramp.bandits import Arms, Policy
from offramp.experiments.joint_policy.spaces import (
    Contender,
    Log,
    OneOf,
    Space,
    found,
    plain,
    played_as_it_is,
    side_exits,
)
from offramp.experiments.joint_policy.sums import AT_THE_CUT, JOINT

GRID = OneOf(("six", "all", "ten", "three"))
FEW = OneOf(("six", "three"))  # for policies whose work grows steeply with the number of arms
THRESHOLD = OneOf((0.7, 0.3, 0.5, 0.6, 0.8, 0.9, 0.95))
WIDTH = Log(0.005, 2.0, 1.0)  # of an exploration bonus; 1 as the papers have it


def wrapped(title: str, wrapper: str, inside: str, space: Space, inner: tuple[str, ...], **fixed: Any) -> Contender:
    """A wrapper around a policy: the parameters named in `inner` are the policy's, the others the wrapper's."""

    def make(given: Mapping[str, Any], _exits: int) -> Policy:
        names = ("thresholds" if name == "part" else name for name in inner)
        own = {name: given[name] for name in names}
        policy = found(inside)(**own)
        around: Policy = found(wrapper)(policy=policy, **fixed, **{k: v for k, v in given.items() if k not in own})
        return around

    return Contender(
        title=title, group="aware", needs=(wrapper, inside), make=make, searched=lambda _exits: dict(space)
    )


def restarting(title: str, detector: str, inside: str = "ucb1:UCB1") -> Contender:
    """A policy that starts anew where a detector alarms on the confidence of the first exit or of the answer."""

    def make(given: Mapping[str, Any], _exits: int) -> Policy:
        own = {name: given[name] for name in ("beta", "thresholds") if name in given}
        policy = found(inside)(**own)
        around: Policy = found("restarting:Restarting")(
            policy=policy, detector=found(detector)(), signal=given["signal"], keep=given["keep"]
        )
        return around

    def space(_exits: int) -> Space:
        signal = OneOf(("first_exit", "answer"))
        own: Space = GRIDS if inside == "ucb1:UCB1" else {"beta": WIDTH}
        return own | {"signal": signal, "keep": Log(0.001, 0.5, 0.02)}

    needs = ("restarting:Restarting", detector, inside)
    return Contender(title=title, group="aware", needs=needs, make=make, searched=space)


def cascades(arms: Arms) -> Arms:
    """CeeBERT's vectors: thresholds of the first exit and of one behind it, from where the unsure are sent."""
    return Arms.cascades(exits=arms.exits, at=(1, behind(arms.exits)), thresholds=(0.3, 0.5, 0.7, 0.8, 0.9, 0.95))


def behind(exits: int) -> int:
    """The deeper one of the two exits that CeeBERT asks."""
    return max(2, min(4, exits - 1))


def _ceebert(given: Mapping[str, Any], exits: int) -> Policy:
    policy: Policy = found("ceebert:CeeBERT")(cut=behind(exits), known_costs=False, **given)
    return policy


SPLITEE = plain("SplitEE", "published", "splitee:SplitEE", {"threshold": THRESHOLD, "beta": WIDTH}, known_costs=False)
ISPLITEE = plain(
    "I-SplitEE", "published", "isplitee:ISplitEE",
    {"threshold": OneOf((0.5, 0.3, 0.6, 0.7, 0.8, 0.9, 0.95)), "beta": WIDTH}, known_costs=False,
)  # fmt: skip
ADAEE = plain(
    "AdaEE", "published", "adaee:AdaEE", lambda exits: {"cut": side_exits(exits), "beta": WIDTH}, known_costs=False
)
UEE = plain("UEE-UCB", "published", "uee_ucb:UEEUCB", {"beta": WIDTH})
GRIDS: Space = {"beta": WIDTH, "part": GRID}

CHAIN: Space = {
    "width": Log(0.01, 1.0, 0.1),
    "memory": Log(300.0, 30_000.0, 3_000.0),
    "keep": Log(0.01, 1.0, 0.1),
    "alarm": Log(2.5, 10.0, 4.0),
}

CONTENDERS: dict[str, Contender] = {
    JOINT: plain("joint policy (ChainUCB)", "joint", "chain_ucb:ChainUCB", CHAIN),
    AT_THE_CUT: plain(
        "joint policy, answers at the cut alone", "joint", "chain_ucb:ChainUCB", CHAIN, on_the_way=False
    ),
    # As published: the price is learnt through the reward, where the paper has one.
    "splitee": SPLITEE,
    "splitee_paper": played_as_it_is(SPLITEE, "SplitEE, the paper's constants"),
    "isplitee": ISPLITEE,
    "isplitee_paper": played_as_it_is(ISPLITEE, "I-SplitEE, the paper's constants"),
    "adaee": ADAEE,
    "adaee_paper": played_as_it_is(ADAEE, "AdaEE, the paper's constants"),
    "uee_ucb": UEE,
    "uee_ucb_paper": played_as_it_is(UEE, "UEE-UCB, the paper's constants"),
    # The same with known prices.
    "splitee_aware": plain(
        "SplitEE, known prices", "aware", "splitee:SplitEE", {"threshold": THRESHOLD, "beta": WIDTH}
    ),
    "isplitee_aware": plain(
        "I-SplitEE, known prices", "aware", "isplitee:ISplitEE", {"threshold": THRESHOLD, "beta": WIDTH}
    ),
    "adaee_aware": plain(
        "AdaEE, known prices", "aware", "adaee:AdaEE", lambda exits: {"cut": side_exits(exits), "beta": WIDTH}
    ),
    # Over the grid of (cut, threshold).
    "ucb1_unaware": plain("UCB1, prices learnt", "unaware", "ucb1:UCB1", GRIDS, known_costs=False),
    "ucb1": plain("UCB1", "aware", "ucb1:UCB1", GRIDS),
    "ucb_v": plain("UCB-V", "aware", "ucb_v:UCBV", GRIDS),
    "ucb_tuned": plain("UCB-Tuned", "aware", "ucb_tuned:UCBTuned", GRIDS),
    "kl_ucb": plain("KL-UCB", "aware", "kl_ucb:KLUCB", GRIDS),
    "bayes_ucb": plain("Bayes-UCB", "aware", "bayes_ucb:BayesUCB", {"c": Log(0.01, 5.0, 1.0), "part": GRID}),
    "gaussian_thompson": plain(
        "Thompson, Gaussian", "aware", "thompson:GaussianThompson", {"beta": WIDTH, "part": FEW}
    ),
    "epsilon_greedy": plain(
        "epsilon-greedy", "aware", "epsilon_greedy:EpsilonGreedy",
        {"epsilon": Log(0.002, 0.5, 0.1), "decay": OneOf((0.0, 10.0, 100.0, 1_000.0)), "part": GRID},
    ),
    "ucb_n": plain("one-sided UCB-N", "aware", "ucb_n:OneSidedUCB", {"beta": WIDTH}),
    "ts_n": plain(
        "TS-N", "aware", "ts_n:GridThompson", {"sd": Log(0.01, 2.0, 0.2)}
    ),
    "windowed_erm": plain(
        "windowed ERM (Apparate)", "aware", "windowed_erm:WindowedERM",
        {"window": OneOf((500, 100, 200, 1_000, 2_000)), "every": OneOf((50, 10, 200)), "probe": Log(0.002, 0.3, 0.05)},
    ),
    # Adversarial.
    "exp3": plain(
        "EXP3", "aware", "exp3:EXP3", {"gamma": Log(0.005, 0.5, 0.1), "span": Log(0.2, 4.0, 2.0), "part": GRID}
    ),
    "exp3_unaware": plain(
        "EXP3, prices learnt", "unaware", "exp3:EXP3",
        {"gamma": Log(0.005, 0.5, 0.1), "span": Log(0.2, 4.0, 2.0), "part": GRID}, known_costs=False,
    ),
    "exp3_s": plain(
        "EXP3.S", "unaware", "exp3_s:EXP3S",
        {"gamma": Log(0.005, 0.5, 0.1), "alpha": Log(1e-6, 1e-2, 1e-4), "span": Log(0.2, 4.0, 2.0), "part": GRID},
    ),
    "exp3_ix": plain(
        "Exp3-IX, realised graph", "aware", "exp3_ix:Exp3IX",
        {"eta": Log(0.005, 1.0, 0.1), "share": Log(1e-6, 1e-2, 1e-4), "span": Log(0.2, 4.0, 2.0), "part": GRID},
    ),
    # One exit, from hierarchical inference.
    "hedge_hi": plain(
        "Hedge-HI", "unaware", "hedge_hi:HedgeHI",
        lambda exits: {
            "cut": side_exits(exits), "epsilon": Log(0.005, 0.5, 0.1), "eta": Log(0.002, 0.5, 0.02),
            "restart": OneOf((True, False)), "loss": OneOf(("disagreement", "confidence")),
        },
    ),
    "hi_lcb": plain(
        "HI-LCB-lite", "unaware", "hi_lcb:HILCBLite",
        lambda exits: {
            "cut": side_exits(exits), "alpha": Log(0.01, 2.0, 0.6), "monotone": OneOf((False, True)),
            "loss": OneOf(("disagreement", "confidence")),
        },
    ),
    # Threshold vectors, context.
    "ceebert": Contender(
        title="CeeBERT", group="unaware", needs=("ceebert:CeeBERT",), make=_ceebert, adds=cascades,
        searched=lambda _exits: {"beta": Log(0.005, 2.0, 2.0)},
    ),
    "lin_ucb": plain(
        "LinUCB", "aware", "lin_ucb:LinUCB",
        {
            "alpha": Log(0.005, 2.0, 1.0), "ridge": Log(0.1, 10.0, 1.0), "recent": OneOf((0, 50, 200)),
            "part": FEW,
        },
    ),
    "mu_lin_ucb": plain(
        "muLinUCB (ANS)", "unaware", "mu_lin_ucb:MuLinUCB",
        {"alpha": Log(0.005, 2.0, 0.1), "ridge": Log(0.1, 10.0, 1.0), "exponent": Log(0.05, 0.9, 0.25)},
    ),
    # Following change.
    "discounted_ucb": plain(
        "D-UCB", "aware", "discounted_ucb:DiscountedUCB",
        {"beta": WIDTH, "discount": OneOf((0.999, 0.99, 0.995, 0.998, 0.9995, 0.9998)), "part": GRID},
    ),
    "sliding_window_ucb": plain(
        "SW-UCB", "aware", "sliding_window_ucb:SlidingWindowUCB",
        {"beta": WIDTH, "window": OneOf((1_000, 200, 500, 2_000, 4_000)), "part": GRID},
    ),
    "discounted_splitee": wrapped(
        "SplitEE, known prices, discounted", "discounted:Discounted", "splitee:SplitEE",
        {"threshold": THRESHOLD, "beta": WIDTH, "discount": OneOf((0.999, 0.99, 0.998, 0.9995))},
        ("threshold", "beta"),
    ),
    "discounted_ucb_n": wrapped(
        "one-sided UCB-N, discounted", "discounted:Discounted", "ucb_n:OneSidedUCB",
        {"beta": WIDTH, "discount": OneOf((0.999, 0.99, 0.998, 0.9995))}, ("beta",),
    ),
    "restarting_ucb1_page_hinkley": restarting("UCB1, Page-Hinkley", "page_hinkley:PageHinkley"),
    "restarting_ucb1_two_window": restarting("UCB1, two windows", "two_window:TwoWindow"),
    "restarting_ucb_n_two_window": restarting(
        "one-sided UCB-N, two windows", "two_window:TwoWindow", "ucb_n:OneSidedUCB"
    ),
    # They never learn.
    "final_exit": plain("final exit", "trivial", "fixed:FinalExit"),
    "offload_first": plain("offload at exit 1", "trivial", "fixed:OffloadFirst"),
    "send_input": Contender(
        title="send the input", group="trivial", needs=("fixed:SendInput",),
        make=lambda _given, _exits: found("fixed:SendInput")(), needs_input=True,
    ),
}  # fmt: skip
