"""SplitEE: cost and accuracy over the price of an offload, and the prices at which it offloads everything."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from omegaconf import DictConfig

from offramp.bandits import Arms, FinalExit, OffloadFirst, PaperUnits, Policy, SplitEE, SplitEES
from offramp.environments import World
from offramp.environments.trace import Trace
from offramp.experiments.earlier import open_cache, title
from offramp.experiments.figures import STYLE, svg
from offramp.experiments.markdown import grid
from offramp.experiments.papers.page import Check, Found, Page, Told, above, at_least, at_most, every, less, pm, tally
from offramp.experiments.papers.playing import beside, means, traces, under
from offramp.experiments.results import interval

matplotlib.use("Agg")
SAVED, LOST, ALWAYS, CHEAP = 50.0, 2.0, 98.0, 2.5
MINE, SIDE, CAUSAL, FIRST, FINAL = (
    "SplitEE",
    "SplitEE-S, as published",
    "SplitEE-S",
    "offload after exit 1",
    "final exit",
)
LOOK = {MINE: ("#1b6ca8", "o"), SIDE: ("#e0a000", "s"), CAUSAL: ("#d1495b", "v"), FIRST: ("#8a5a2b", "X")}


def policies(threshold: float) -> dict[str, Policy]:
    """Published forms (the price is learnt, and SplitEE-S reads what was never sent), and SplitEE-S as deployable."""
    return {
        MINE: SplitEE(threshold=threshold, known_costs=False),
        SIDE: SplitEES(threshold=threshold, oracle_side_information=True, known_costs=False),
        CAUSAL: SplitEES(threshold=threshold),
        FIRST: OffloadFirst(),
        FINAL: FinalExit(),
    }


def at_first(runs: list[Trace], arms: Arms) -> list[float]:
    """Share of rounds at the first split, of each seed, in per cent."""
    of = np.array([arm.cut == 1 for arm in arms.table])
    return [float(100.0 * (t.arms[-1][of].sum() + t.cuts[-1][1]) / t.rounds[-1]) for t in runs]


def measure(cfg: DictConfig, pool: ThreadPoolExecutor) -> Found:
    """Play under each condition, threshold and price; every exit counts as one layer."""
    per, cache = cfg.splitee, open_cache(cfg.cache)
    assert cache.profile is not None
    exits = len(cache.exits)
    test = cache.part("test")
    one_each = replace(cache.profile, layers=tuple(range(1, exits + 1)))
    rows, below = [], []
    for condition in per.conditions:
        first = test.confidence[test.condition(condition), 0, :, 0]
        for threshold in (*per.thresholds, per.unreached):
            below.append(
                {"condition": condition, "threshold": threshold, "share": float(100.0 * (first < threshold).mean())}
            )
            arms = Arms.grid(exits=exits, thresholds=[threshold, np.inf])
            for units in per.offloads:
                prices = PaperUnits(per_layer=per.per_layer, offload=units * per.per_layer)
                # Heads count nothing in these prices, so that `evaluate` changes only what is seen.
                world = World(cache=replace(test, profile=one_each), prices=prices, arms=arms)
                found = traces(
                    policies(threshold), world, under(condition), horizon=per.horizon, seeds=cfg.seeds, pool=pool
                )
                runs = means(found)
                rows.append({
                    "condition": condition,
                    "threshold": threshold,
                    "offload": units,
                    "policies": {
                        name: beside(run, runs[FINAL])
                        | {"cost": interval((run["cost"] / per.per_layer).tolist())}
                        | {"accuracy": interval((100.0 * run["accuracy"]).tolist())}
                        | {"first": interval(at_first(found[name], arms))}
                        for name, run in runs.items()
                    },
                })  # fmt: skip
    return {
        "cache": title(cache, cfg.cache),
        "rows": rows,
        "below": below,
        "unreached": per.unreached,
        "exits": exits,
        "horizon": per.horizon,
        "seeds": cfg.seeds,
    }


def page(found: Found) -> Page:
    """The page of the claim."""
    dearest, cheapest = (pick(r["offload"] for r in found["rows"]) for pick in (max, min))
    authors = [r for r in found["rows"] if r["threshold"] != found["unreached"]]
    dear = [r for r in authors if r["offload"] == dearest]
    cheap = [r for r in authors if r["offload"] == cheapest]
    always = [r for r in found["rows"] if r["threshold"] == found["unreached"] and r["offload"] <= CHEAP]
    (s_at, saved), (g_at, gained) = least(dear, "saved"), least(dear, "gained")
    (f_at, first), (o_at, sent), (a_at, all_) = (
        least(cheap, "first"),
        least(cheap, "offloads"),
        least(always, "offloads"),
    )
    rising = [costs_rise(found["rows"], r["condition"], r["threshold"]) for r in cheap]
    checks = [
        Check(
            what=f"cost saved at {dearest:g} layers an offload, least",
            wanted=f"> {SAVED:.0f} %",
            found=f"{pm(saved)} % ({s_at})",
            holds=at_least(saved, SAVED),
        ),
        Check(
            what=f"accuracy gained at {dearest:g} layers an offload, least",
            wanted=f"> −{LOST:.0f} points",
            found=f"{pm(gained)} points ({g_at})",
            holds=at_least(gained, -LOST),
        ),
        Check(
            what="cost rises with the price of an offload",
            wanted="everywhere, beyond the intervals",
            found=f"{tally(rising)} settings",
            holds=every(rising),
        ),
        Check(
            what=f"the first split is the most played at {cheapest:g} layer an offload; its share, least",
            wanted="> 50 %",
            found=f"{pm(first)} % ({f_at})",
            holds=at_least(first, 50.0),
        ),
        Check(
            what=f"images sent at {cheapest:g} layer an offload, least",
            wanted=f"≥ {ALWAYS:.0f} %",
            found=f"{pm(sent)} % ({o_at})",
            holds=at_least(sent, ALWAYS),
        ),
        Check(
            what=f"the same up to {CHEAP:g} layers, with a threshold that the first exit hardly ever reaches",
            wanted=f"≥ {ALWAYS:.0f} %",
            found=f"{pm(all_)} % ({a_at})",
            holds=at_least(all_, ALWAYS),
        ),
    ]
    nearest = [r["policies"][MINE]["offloads"]["mean"] for r in always if r["offload"] == cheapest]
    near = min(nearest)
    below = ", ".join(f"{b['share']:.0f} % ({b['condition']}, {b['threshold']:g})" for b in found["below"])
    slope = float(np.mean([cost_slope(found["rows"], r["condition"], r["threshold"]) for r in cheap]))
    both = [[r["policies"][who]["cost"] for who in (MINE, FIRST)] for r in authors]
    cheaper = sum(at_most(less(*pair), 0.0) is True for pair in both)
    return Page(
        title="SplitEE: what does the price of an offload change?",
        hypothesis="SplitEE costs less than half of the final exit and is less than 2 points less accurate, for "
        "prices of an offload from one layer to five. Below that lies what its figures show and its text does not "
        "say: up to 2.5 layers at least 98 % of all samples are sent from the first exit.",
        source="arXiv 2309.09195 (AIMLSystems 2023): abstract, and numbers recovered from the vector figures beside "
        "its code. The 98 % follow from the slope of its cost curves.",
        setting=f"`{found['cache']}` in place of ElasticBERT, its {found['exits']} exits as so many layers of price "
        "1; the exits are those for undistorted images, the streams one distortion each (the paper: text of another "
        f"source). {found['horizon']:,} rounds, {found['seeds']} seeds, the smallest and the largest threshold of the "
        f"authors, and {found['unreached']:g}. The cost is that within the reward. *{CAUSAL}* sees only what a "
        "deployment sees, and knows the price.",
        tables={"By the price of an offload": table(found)},
        pictures={"splitee": draw(found)},
        checks=checks,
        why=[
            "Where offloads are cheap the first split wins, as in the paper. It does not send everything, for this "
            f"first exit is often sure: its confidence lies below the threshold for {below}, and only that is sent "
            "from there. The cost curve's slope between the two cheapest prices, which is the share that is sent, is "
            f"{slope:.2f} on average; the paper's is 1.",
            f"With a threshold that is hardly ever reached the published curve comes near: at {cheapest:g} layer an "
            f"offload {near:.0f} % or more are sent, and the rest is seven splits being tried and the few images that "
            "the first exit is sure of all the same. SplitEE is then the policy that offloads after the first exit, "
            "with the final exit's accuracy, because the cloud computes for nothing. That policy belongs into every "
            f"figure of this kind. With the authors' thresholds SplitEE is cheaper than it at {cheaper} of "
            f"{len(authors)} settings here, and less accurate.",
            "The accuracy claim depends on the threshold, which is given and not learnt: what an early exit answers "
            "above it is as right as that exit is honest.",
        ],
    )


def least(rows: list[Found], key: str) -> tuple[str, dict[str, float]]:
    """Where the lower end of a number of SplitEE is the smallest, and the number."""
    row = min(rows, key=lambda r: r["policies"][MINE][key]["mean"] - r["policies"][MINE][key]["half"])
    at = f"{row['condition']}, threshold {row['threshold']:g}, {row['offload']:g} layers"
    return at, row["policies"][MINE][key]


def of(rows: list[Found], condition: str, threshold: float) -> list[Found]:
    """One setting's rows by price."""
    mine = [r for r in rows if (r["condition"], r["threshold"]) == (condition, threshold)]
    return sorted(mine, key=lambda r: float(r["offload"]))


def costs_rise(rows: list[Found], condition: str, threshold: float) -> Told:
    """Does SplitEE's cost rise from each price to the next, the whole interval of the one above that of the other?"""
    costs = [r["policies"][MINE]["cost"] for r in of(rows, condition, threshold)]
    apart = [(b["mean"] - a["mean"], a["half"] + b["half"]) for a, b in pairwise(costs)]
    return every(above(rise - half, rise + half, 0.0) for rise, half in apart)


def cost_slope(rows: list[Found], condition: str, threshold: float) -> float:
    """Rise of the cost with the price, between the two cheapest."""
    one, two = of(rows, condition, threshold)[:2]
    rise = two["policies"][MINE]["cost"]["mean"] - one["policies"][MINE]["cost"]["mean"]
    return float(rise / (two["offload"] - one["offload"]))


def table(found: Found) -> str:
    """Cost, accuracy, offloads and the first split's share by price."""
    body = []
    for r in found["rows"]:
        cells = [
            f"{r['policies'][who]['cost']['mean']:.2f} / {r['policies'][who]['accuracy']['mean']:.1f} / "
            f"{r['policies'][who]['offloads']['mean']:.0f}"
            for who in (MINE, SIDE, CAUSAL, FIRST)
        ]
        mine = r["policies"][MINE]
        body.append(
            [
                r["condition"],
                f"{r['threshold']:g}",
                f"{r['offload']:g}",
                *cells,
                f"{mine['first']['mean']:.0f}",
                pm(mine["saved"]),
                pm(mine["gained"]),
            ]
        )
    heads = [
        "stream",
        "threshold",
        "offload, layers",
        MINE,
        SIDE,
        CAUSAL,
        FIRST,
        "at the first split %",
        "saved %",
        "gained, points",
    ]
    return f"Cost in layers / accuracy % / offloaded %; the last three of {MINE}, against the final exit.\n\n" + grid(
        heads, body, 2
    )


def draw(found: Found) -> str:
    """Accuracy, cost and share of offloads over the price, at the largest threshold."""
    conditions = list(dict.fromkeys(r["condition"] for r in found["rows"]))
    threshold = max(r["threshold"] for r in found["rows"] if r["threshold"] != found["unreached"])
    with plt.rc_context(STYLE | {"svg.hashsalt": "splitee"}):
        figure, axes = plt.subplots(
            3, len(conditions), figsize=(4 * len(conditions), 8), squeeze=False, sharex=True, sharey="row"
        )
        for k, (column, condition) in enumerate(zip(axes.T, conditions, strict=True)):
            rows = of(found["rows"], condition, threshold)
            x = [r["offload"] for r in rows]
            for ax, (key, label) in zip(
                column,
                (("accuracy", "accuracy (%)"), ("cost", "cost (layers)"), ("offloads", "offloaded (%)")),
                strict=True,
            ):
                for who, (colour, mark) in LOOK.items():
                    values = [r["policies"][who][key] for r in rows]
                    ax.errorbar(
                        x,
                        [v["mean"] for v in values],
                        yerr=[v["half"] for v in values],
                        color=colour,
                        marker=mark,
                        ms=4,
                        lw=1,
                        elinewidth=0.7,
                        label=who,
                    )
                ax.set_ylabel("" if k else label)
            column[0].set_title(condition, fontsize=10)
            column[-1].set_xlabel("price of an offload (layers)")
        axes[0][0].legend(frameon=False, fontsize=8)
        figure.suptitle(
            f"{found['cache']}, threshold {threshold:g}: {found['horizon']:,} rounds, mean and 95 % interval, n = "
            f"{found['seeds']} seeds",
            fontsize=9,
        )
        return svg(figure, "splitee") + "\n"
