"""What README shows: the rows that it chooses, on what they were measured, and what follows from them."""

import math

from cells import found, measured, number, percentile, plain, spread, value, why
from kept import Kept
from machine import in_words

CHOSEN: dict[str, tuple[str, ...]] = {  # the rows that README shows, beside all that were missed
    "rollout-c": (
        "rollout of UCB1 / C, same rounding (12 arms, 1,000,000 rounds)",
        "rollout of UCB1 / C, gcc may fuse multiply and add",
        "rollout of UCB1 / C that fetches ahead as our loop does",
    ),
    "joint": (
        "rollout of ChainUCB, 7 exits x 20 bins, a round",
        "a step of ChainUCB from Python, decision and update",
        "Engine.decide and Engine.update of ChainUCB",
    ),
    "timed": ("rollout of ChainUCB in time, 7 exits, 29 (split, codec) pairs, a round",),
    "peers": (
        "UCB1 over a matrix of rewards, 12 arms, a round: compiled loop",
        "· engine, an observation made each round",
        "· lightrl",
        "· river",
        "· mabwiser",
    ),
    "threads": ("20 seeds on 2 threads / one seed (500,000 rounds each)",),
    "memory": ("peak memory of a rollout of 1e+08 rounds",),
    "start": ("import offramp.bandits", "process start to the first decision"),
    "durable": ("durable decide + update of ChainUCB, synchronous=NORMAL",),
    "service": (
        "service, 32 connections, 2,000 decisions/s for 60 s, p50",
        "service, 32 connections, 2,000 decisions/s for 60 s, p99",
    ),
    "sweep": ("sweep of 50 jobs x 20 seeds x 20,000 rounds, compilation included",),
    "compare": ("offramp compare, 10 policies x 20 seeds x 20,000 rounds",),
    "wheel": ("size of the wheel",),
}
SHORT = "| what | measured | asked for |\n|---|--:|--:|"
LEGEND = (
    "Medians, quartiles in brackets; p50 and p99 are those of all requests together. "
    "Every row of the whole table that missed what was asked is shown."
)


def chosen(kept: Kept) -> str:
    """README's table, why rows were missed, and when and on what all was measured."""
    lines, reasons = [], []
    for group in dict.fromkeys((*CHOSEN, *kept["groups"])):
        there = {row.what: row for row in found(kept, group)}
        missed = (what for what, row in there.items() if row.verdict == "missed")
        for what in dict.fromkeys((*CHOSEN.get(group, ()), *missed)):
            row = there.get(what)
            if row is None:
                lines.append(f"| {plain(what)} | **not measured** | |")
                continue
            quartiles = f" ({spread(row)})" if spread(row) and not percentile(row) else ""
            goal = row.goal
            if row.verdict == "missed":
                goal += " **missed**"
                reasons.append(f"- {plain(what)}: {plain(why(row, kept['groups'][group], kept))}")
            lines.append(f"| {plain(what)} | {measured(row)}{quartiles} | {goal} |")
    told = ["", "Why rows were missed:", "", *reasons] if reasons else []
    return "\n".join([SHORT, *lines, *told, "", LEGEND, occasion(kept)])


def occasion(kept: Kept) -> str:
    """When all was measured, under what load, on what."""
    groups = list(kept["groups"].values())
    if not groups:
        return "Nothing was measured yet."
    days = sorted({group["at"][:10] for group in groups})
    loads = sorted(group["load"][0] for group in groups if group["load"])
    when = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
    load = f", each group under a load of {number(loads[0])} to {number(loads[-1])} before it" if loads else ""
    quick = " Some groups are quick runs, to be looked at only." if any(group["quick"] for group in groups) else ""
    about = " ".join(dict.fromkeys(in_words(facts).split("\n")[0] for facts in kept["machines"].values()))
    return f"Measured {when}{load}.{quick}\n{about}"


def reading(kept: Kept) -> str:
    """What README says about the numbers, in words that follow from them."""
    said = []
    bare, ahead = (value(kept, "rollout-c", f"· C, {how}") for how in ("same rounding", "fetching ahead"))
    faster, alone = (
        value(kept, "rollout-c", what)
        for what in (CHOSEN["rollout-c"][0], "rollout of UCB1 / C that fetches ahead as our loop does")
    )
    if not math.isnan(bare + ahead + faster + alone):
        end = "short of" if alone < 0.9 else "no less than"
        said.append(
            f"Of a round of the plain C loop, {number(bare)} ns, {1.0 - ahead / bare:.0%} is waiting for the memory:"
            " samples come in random order.\nOur loop asks for each sample's facts eight rounds ahead;"
            f" it plays {number(faster)} times as many rounds a second as that loop.\nA C loop that asks ahead as well"
            f" takes {number(ahead)} ns: of its rounds a second ours plays {number(alone)} times as many,"
            f" {end} nine tenths."
        )
    made, refilled = (
        value(kept, "peers", f"· engine, an observation {how}") for how in ("made each round", "refilled")
    )
    theirs = value(kept, "peers", "· lightrl")
    if not math.isnan(made + refilled + theirs):
        said.append(
            f"An engine that is given a new observation in each round takes {number(made)} µs,"
            f" {number(made - refilled)} µs of it to make the observation: {number(made / theirs)} times as long as\n"
            "lightrl, which keeps two lists, no open decisions and no prices."
        )
    return "\n".join(said) or "Nothing was measured yet."
