"""What README shows: the rows that it chooses, on what they were measured, and what follows from them."""

import math

from cells import found, measured, number, plain, spread, value, why
from kept import Kept
from machine import in_words

CHOSEN: dict[str, tuple[str, ...]] = {  # the rows that README shows
    "rollout-c": (
        "rollout of UCB1 / C, same rounding (12 arms, 1,000,000 rounds)",
        "rollout of UCB1 / C, gcc may fuse multiply and add",
        "rollout of UCB1 / C that writes the whole observation",
        "rollout of UCB1 / C that fetches ahead as our loop does",
        "· rollout of UCB1",
    ),
    "joint": (
        "rollout of ChainUCB, 7 exits x 20 bins, a round",
        "rollout of ChainUCB, offloads dearer or cheaper by 1 to 5 % every round",
        "· ChainUCB that plans in every round, as where prices change by more than a tenth",
        "a step of ChainUCB from Python, decision and update",
        "Engine.decide and Engine.update of ChainUCB",
    ),
    "policy-step": ("a step of UCB1 from Python, 12 arms", "river's UCB / UCB1, a step"),
    "engine": ("Engine.decide and Engine.update, 7 exits",),
    "peers": (
        "UCB1 over a matrix of rewards, 12 arms, a round: compiled loop",
        "· C, as the textbook prints it",
        "· array level",
        "· engine, an observation refilled",
        "· engine, an observation made each round",
        "· lightrl",
        "· river",
        "· mabwiser",
        "time of lightrl / of our compiled loop",
        "time of river / of our compiled loop",
        "time of mabwiser / of our compiled loop",
    ),
    "threads": ("20 seeds on 2 threads / one seed (500,000 rounds each)",),
    "memory": ("peak memory of a rollout of 1e+08 rounds",),
    "start": ("import offramp.bandits", "process start to the first decision"),
    "timed": ("rollout of ChainUCB in time, 7 exits, 29 (split, codec) pairs, a round",),
    "gym": ("a step of offramp/SplitExit-v0, its share of the reset included",),
    "cache": ("opening a cache of 10000 x 30 x 12 (samples x conditions x exits)",),
    "durable": (
        "durable decide + update of ChainUCB, synchronous=NORMAL",
        "durable decide + update of ChainUCB, synchronous=FULL",
        "durable decide + update of UCB1, synchronous=NORMAL",
    ),
    "service": (
        "service, one connection, decide, p50",
        "service, 32 connections, 2,000 decisions/s for 60 s, p50",
        "service, 32 connections, 2,000 decisions/s for 60 s, p99",
        "service, 32 connections, 2,000 decisions/s for 60 s, each with feedback: decide, p99",
    ),
    "sweep": ("sweep of 50 jobs x 20 seeds x 20,000 rounds, compilation included",),
    "wheel": ("size of the wheel", "· of it offramp.bandits, the engine and the policies"),
    "compare": ("offramp compare, 10 policies x 20 seeds x 20,000 rounds",),
    "exits": ("all exits / plain backbone, batch of 100",),
    "experts": (
        "router + expert's exits / own exits, batch of 100",
        "router + expert's exits / own exits, one image",
    ),
}
SHORT = "| what | measured | asked for |\n|---|--:|--:|"


def chosen(kept: Kept) -> str:
    """README's table, why rows were missed, and when and on what all was measured."""
    lines, reasons = [], []
    for group, wanted in CHOSEN.items():
        there = {row.what: row for row in found(kept, group)}
        for what in wanted:
            row = there.get(what)
            if row is None:
                lines.append(f"| {plain(what)} | **not measured** | |")
                continue
            quartiles = f" ({spread(row)})" if spread(row) else ""
            missed = " **missed**" if row.verdict == "missed" else ""
            if row.verdict == "missed":
                reasons.append(f"- {plain(what)}: {plain(why(row, kept['groups'][group], kept))}")
            lines.append(f"| {plain(what)} | {measured(row)}{quartiles} | {row.goal}{missed} |")
    told = ["", "Why rows were missed:", "", *reasons] if reasons else []
    return "\n".join([SHORT, *lines, *told, "", "Medians, quartiles in brackets.", occasion(kept)])


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
            f" takes {number(ahead)} ns, so of the arithmetic alone we reach {number(alone)}, {end} nine tenths."
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
