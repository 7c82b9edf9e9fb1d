"""The study's tables as Markdown, written between the markers of its README."""

from collections.abc import Callable
from functools import partial
from typing import Any

from offramp.experiments.expert_branches.systems import EXPERTS, PRISTINE
from offramp.experiments.expert_branches.tables import number, with_interval
from offramp.experiments.headline.playing import BEST, FIRST, ISPLITEE, OURS, PLAIN, PLAYERS, SEND, STAYS, WHOLE
from offramp.experiments.headline.prices import AUTHORS, CLAIMED, PAPER
from offramp.experiments.headline.study import GAINED, SAVED
from offramp.experiments.markdown import grid
from offramp.experiments.written import filled

Found = dict[str, Any]
Kept = dict[str, Found]
MAIN = "mobilenet_v2_cifar10"
WANTED = {
    WHOLE: f"saves ≥ {SAVED:.0f} %, at least as accurate",
    PLAIN: f"≥ {GAINED:.0f} points more accurate",
    SEND: "cheaper, at least as accurate",
    FIRST: "cheaper, at least as accurate",
}
COMPARED = (WHOLE, BEST, ISPLITEE)
NAMES = {
    PAPER: "paper: network .3, offload .1",
    AUTHORS: "I-SplitEE's: .1 a layer, .5 an offload",
    CLAIMED: "physical",
}


def listed(row: Found) -> str:
    """A price list's name in full."""
    return f"physical: {row['place']}" if "place" in row else NAMES[row["prices"]]


def verdict(claim: Found) -> str:
    """What came of one claim; bold where it does not hold."""
    saved = "" if claim["against"] == PLAIN else f"{with_interval(claim['saved'])} %, "
    text = f"{saved}{with_interval(claim['gained'])} points"
    return text if claim["holds"] else f"**{text}**"


def main_of(kept: Kept) -> tuple[str, Found]:
    """The cache that the long tables are about."""
    name = MAIN if MAIN in kept else next(iter(kept))
    return name, kept[name]


def once(kept: Kept) -> Kept:
    """The caches without those of other training seeds of the main one."""
    main = main_of(kept)[0]
    return {name: found for name, found in kept.items() if not name.startswith(f"{main}_seed")}


def shown(kept: Kept) -> str:
    """Every claim under both price lists, a column for each cache."""
    rows = []
    for place in (0, 2):
        for i, other in enumerate(WANTED):
            cells = [verdict(found["lists"][place]["claims"][i]) for found in kept.values()]
            about = "; ".join(sorted({listed(found["lists"][place]) for found in kept.values()}))
            rows.append([about, other, WANTED[other], *cells])
    return grid(["prices", "against", "wanted", *kept], rows, 3)


def images(kept: Kept) -> str:
    """The same claims, and two comparisons, where every seed has images of its own; of the caches that have it."""
    having = {name: found["over_images"] for name, found in kept.items() if "over_images" in found}
    if not having:
        return "No cache of this record was played on parts of its images."
    rows = []
    for place, listed_ in enumerate((PAPER, CLAIMED)):
        lists = {name: found["lists"][place] for name, found in having.items()}
        about = "; ".join(sorted({listed(kept[name]["lists"][2 * place]) for name in having}))
        for i, other in enumerate(WANTED):
            rows.append([about, other, WANTED[other], *(verdict(one["claims"][i]) for one in lists.values())])
        for other in (BEST, ISPLITEE):
            rows.append([about, other, "", *(both(one["against"][other]) for one in lists.values())])
        assert all(one["prices"] == listed_ for one in lists.values())
    return grid(["prices", "against", "wanted", *having], rows, 3)


def streams_over_images(kept: Kept) -> str:
    """What is gained on every stream, where every seed has images of its own."""
    having = {name: found["over_images"] for name, found in kept.items() if "over_images" in found}
    if not having:
        return "No cache of this record was played on parts of its images."
    rows = [
        [name, row["stream"], *(both(row["against"][other]) for other in COMPARED)]
        for name, found in having.items()
        for row in found["streams"]
    ]
    return grid(["cache", "stream", *(f"against {other}" for other in COMPARED)], rows, 2)


def both(found: Found) -> str:
    """Cost saved and points gained; bold where surely less accurate."""
    text = f"{with_interval(found['saved'])} %, {with_interval(found['gained'])} points"
    return f"**{text}**" if loses(found["gained"]) else text


def loses(gained: dict[str, float]) -> bool:
    """Does the whole interval of what is gained lie below 0?"""
    return gained["mean"] + gained["half"] < 0.0


def everybody(kept: Kept) -> str:
    """Every player under the paper's, the authors' and the physical prices, on the main cache."""
    rows = []
    for name, found in [main_of(kept)]:
        for row in found["lists"]:
            for who in PLAYERS:
                at = row["players"][who]
                label = f"{who} ({found['best_exit']})" if who == BEST else who
                cost, sent = with_interval(at["cost"], 4), number(at["offloads"]["mean"], 1, 100.0)
                rows.append([name, listed(row), label, with_interval(at["accuracy"], 1, 100.0), cost, sent])
    return grid(["cache", "prices", "who", "accuracy %", "cost", "offloaded %"], rows, 3)


def exits(kept: Kept) -> str:
    """Accuracy of every exit over the mixed stream."""
    rows = []
    for name, found in kept.items():
        for system in (PRISTINE, EXPERTS):
            cells = [number(a, 1, 100.0) for a in found["accuracy_of_exits"][system]]
            rows.append([name, system, " / ".join(cells), str(found["best_exit"]) if system == EXPERTS else ""])
    return grid(["cache", "exits", "accuracy % of exit 1, 2, ...", "best, as validation images say"], rows, 4)


def places(kept: Kept) -> str:
    """Every device with every link, for each network once."""
    rows = []
    for name, found in once(kept).items():
        for row in found["places"]:
            took = [
                f"{number(row['units'][who]['ms'], 2)} / {number(row['units'][who]['mj'], 1)} / "
                f"{number(row['units'][who]['bytes'], 0)}"
                for who in (OURS, WHOLE, SEND)
            ]
            claimed = [verdict(c) for c in row["claims"] if c["against"] != PLAIN]
            rows.append([name, row["place"], *took, *claimed])
    heads = ["cache", "device, link", f"{OURS}: ms / mJ / bytes", f"{WHOLE}", f"{SEND}"]
    return grid([*heads, *(f"against {c}" for c in (WHOLE, SEND, FIRST))], rows, 2)


def streams(kept: Kept) -> str:
    """Other streams, in paper units."""
    rows = []
    for name, found in kept.items():
        for row in found["streams"]:
            who = row["players"]
            points = [number(who[k]["accuracy"]["mean"], 1, 100.0) for k in (PLAIN, WHOLE, BEST, OURS, ISPLITEE)]
            points[2] += f" ({row['best_exit']})"
            others = [both(row["against"][other]) for other in COMPARED]
            rows.append([name, row["stream"], *points, *others, f"{row['mu']:g}: {both(row['picked'])}"])
    heads = ["cache", "stream", "plain, final", WHOLE, BEST, OURS, ISPLITEE]
    heads += [f"against {other}" for other in COMPARED]
    return grid([*heads, f"against {WHOLE}, mu chosen on validation images"], rows, 2)


def makings(kept: Kept) -> str:
    """What the streams are made of, and who took part."""
    _, found = main_of(kept)
    config = found["config"]
    parts = "; ".join(f"*{row['stream']}*: {', '.join(row['conditions'])}" for row in found["streams"])
    return (
        f"{config['horizon']:,} rounds, seeds 0 to {config['seeds'] - 1}, mu {config['mu']:g}; fronts with "
        f"{config['fronts']['seeds']} seeds; mu chosen on {config['choosing']['horizon']:,} rounds of validation "
        f"images with seeds from {config['choosing']['first']} on. Segments of the streams: {parts}."
    )


def image_stays(kept: Kept) -> str:
    """What changes where the image may not be sent."""
    rows = []
    for name, found in kept.items():
        for row in found["lists"]:
            a, b = (row["players"][who] for who in (OURS, STAYS))
            cells = [f"{number(x['accuracy']['mean'], 1, 100.0)} at {number(x['cost']['mean'], 4)}" for x in (a, b)]
            rows.append([name, listed(row), *cells])
    return grid(["cache", "prices", OURS, STAYS], rows, 2)


SECTIONS: dict[str, Callable[[Kept], str]] = {
    "shown": shown,
    "images": images,
    "exits": exits,
    "everybody": everybody,
    "places": places,
    "streams": streams,
    "streams, other images": streams_over_images,
    "makings": makings,
    "image stays": image_stays,
}


def fill(text: str | None, kept: Kept) -> str:
    """The README with each section between its markers written anew; without a README, the sections alone."""
    return filled(text, {name: partial(made, kept) for name, made in SECTIONS.items()})


def said(found: Found) -> str:
    """Every claim in one line, for the terminal."""
    lines = []
    for row in (found["lists"][0], found["lists"][2]):
        for claim in row["claims"]:
            holds = "holds" if claim["holds"] else "does not hold"
            lines.append(
                f"{listed(row)}, against {claim['against']} ({WANTED[claim['against']]}): {holds}; saved "
                f"{with_interval(claim['saved'])} %, gained {with_interval(claim['gained'])} points"
            )
    return "\n".join(lines)
