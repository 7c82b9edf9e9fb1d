"""What was to be shown, row by row, with what was found; and the study's one score."""

from typing import Any

from offramp.experiments.expert_branches.mixed import DISTORTED, POLICIES, WHOLE
from offramp.experiments.expert_branches.systems import EXPERTS, ORACLE, PRISTINE, PRISTINE_CALIBRATED

Found = dict[str, Any]
SLACK = 0.02  # edge accuracy may stay so far below the target
DETECTED = 0.95  # router's accuracy from which predicted routing must keep up with oracle routing


def worst_gain(found: Found, part: str, other: tuple[str, ...], prices: tuple[str, ...]) -> Found:
    """The row with the smallest lower end of the least gain over the three policies, the baselines and the prices."""
    rows = [
        g
        for g in found["gains"]
        if g["part"] == part
        and g["system"] == EXPERTS
        and g["against"] in other
        and g["prices"] in prices
        and g["policy"] in POLICIES
    ]
    return min(rows, key=lambda g: g["least"]["mean"] - g["least"]["half"])


def score(found: Found) -> Found:
    """Points gained over the whole stream in paper units: the lower end, at the worst cost, policy and baseline."""
    row = worst_gain(found, WHOLE, (PRISTINE, PRISTINE_CALIBRATED), ("paper",))
    return {
        "points": row["least"]["mean"] - row["least"]["half"],
        "policy": row["policy"],
        "against": row["against"],
        "cost": row["least"]["cost"],
    }


def matched(found: Found, system: str) -> list[Found]:
    """Cascades of a system under the conditions that have an expert, where the edge answers anything."""
    has = {r["condition"] for r in found["routing"] if r["has_expert"]}
    rows = [r for r in found["levels"] if r["system"] == system and r["condition"] in has]
    return [r for r in rows if r["edge_share"] > 0.0]


def strongest(found: Found) -> list[Found]:
    """Of blur and of noise the condition where the pristine exits, calibrated, are right the least often."""
    at = [r for r in matched(found, PRISTINE_CALIBRATED) if r["target"] == found["target"]]
    families = [[r for r in at if r["family"] == family] for family in ("blur", "noise")]
    return [min(rows, key=lambda r: r["accuracy"]) for rows in families if rows]


def judged(found: Found) -> list[Found]:
    """Rows of what was wanted and what was found; `holds` is None where nothing could be judged."""
    target = found["target"]
    rows = []

    def add(what: str, wanted: str, value: str, holds: bool | None) -> None:
        rows.append({"what": what, "wanted": wanted, "found": value, "holds": holds})

    both, lists = (PRISTINE, PRISTINE_CALIBRATED), ("paper", "physical")
    for part, least in ((WHOLE, 12.0), (DISTORTED, 20.0)):
        for prices in lists:
            row = worst_gain(found, part, both, (prices,))
            low = row["least"]["mean"] - row["least"]["half"]
            add(
                f"gain at equal cost, {part} stream, {prices} prices: smallest over policies, baselines and costs",
                f"≥ {least:.0f} points",
                f"{row['least']['mean']:.1f} ±{row['least']['half']:.1f} ({row['policy']})",
                low >= least,
            )
    row = worst_gain(found, WHOLE, (ORACLE,), lists)
    add(
        "predicted minus oracle routing at equal cost, whole stream: smallest",
        "≥ −2 points",
        f"{row['least']['mean']:.1f} ±{row['least']['half']:.1f} ({row['policy']}, {row['prices']} prices)",
        row["least"]["mean"] - row["least"]["half"] >= -2.0,
    )
    for weak in strongest(found):
        mine = next(r for r in matched(found, EXPERTS) if r["condition"] == weak["condition"] and r["target"] == target)
        apart = 100.0 * (mine["accuracy"] - weak["accuracy"])
        add(
            f"shape 1: experts minus pristine exits at {weak['condition']}, cascade at {target:g}",
            "≥ 20 points where the latter < 40 %",
            f"{apart:.1f} points ({100 * weak['accuracy']:.1f} → {100 * mine['accuracy']:.1f} %)",
            apart >= 20.0 if weak["accuracy"] < 0.4 else None,
        )
    lost = [-r["final"]["mean"] for r in found["on_pristine"][1:]]
    add(
        "shape 1: what an expert loses on pristine images, final exit",
        "2 to 6 points",
        f"{min(lost):.1f} to {max(lost):.1f} points",
        min(lost) >= 2.0 and max(lost) <= 6.0,
    )
    short = min(matched(found, EXPERTS), key=lambda r: r["edge_accuracy"] - r["target"])
    add(
        "shape 2: edge accuracy of experts minus target, worst level and target",
        "≥ −2 points",
        f"{100 * (short['edge_accuracy'] - short['target']):+.1f} points ({short['condition']}, {short['target']:g})",
        short["edge_accuracy"] >= short["target"] - SLACK,
    )
    weak = min(matched(found, PRISTINE_CALIBRATED), key=lambda r: r["edge_accuracy"] - r["target"])
    add(
        "shape 2: the same of pristine exits, calibrated",
        "< −20 points",
        f"{100 * (weak['edge_accuracy'] - weak['target']):+.1f} points ({weak['condition']}, {weak['target']:g})",
        weak["edge_accuracy"] < weak["target"] - 0.2,
    )
    seen = [r for r in found["routing"] if r["right"] >= DETECTED and r["has_expert"]]
    far = min(seen, key=lambda r: r["cascade"]["mean"])
    add(
        f"shape 3: predicted minus oracle routing, cascade at {target:g}, router ≥ {100 * DETECTED:.0f} % right",
        "≥ −2 points",
        f"{far['cascade']['mean']:+.1f} ±{far['cascade']['half']:.1f} ({far['condition']})",
        far["cascade"]["mean"] - far["cascade"]["half"] >= -2.0,
    )
    return rows
