"""The study's tables as Markdown, written between the markers of its README."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from offramp.experiments.deadline.places import BUSY, CALM, PRISTINE
from offramp.experiments.markdown import grid
from offramp.experiments.written import filled_by_cache

Found = dict[str, Any]
ARRIVALS = {CALM: "nothing waits", BUSY: "with a queue"}


def number(value: float | None, digits: int = 1, scale: float = 1.0) -> str:
    """A number as text; a dash where there is none."""
    return "–" if value is None else f"{round(scale * value, digits) + 0.0:,.{digits}f}"


def percent(value: float | None) -> str:
    """A share in percent, without the sign."""
    return number(value, 1, 100.0)


def several(rows: Sequence[Found], metric: str, show: Callable[[float | None], str]) -> str:
    """The means of one metric in several rows, in their order."""
    return " / ".join(show(row[metric][0]) for row in rows)


def sign(mean: float | None, half: float | None) -> int:
    """-1 or 1 where the 95 % interval of a difference lies on one side of 0, else 0, also where nothing is known."""
    if mean is None or half is None or abs(mean) <= half:
        return 0
    return 1 if mean > 0.0 else -1


def cascade_cells(found: Found, **wanted: Any) -> list[Found]:
    """Rows of cascades with their stream and link, of those that have the wanted values."""
    rows = [
        row | dict(zip(("stream", "link"), key.split(", "), strict=True))
        for key, some in found["cascades"].items()
        for row in some
    ]
    return [row for row in rows if all(row[k] == v for k, v in wanted.items())]


def player_cells(found: Found, **wanted: Any) -> list[Found]:
    """Rows of players with their link and arrivals, of those that have the wanted values."""
    rows = [
        row | dict(zip(("link", "arrivals"), key.split(", "), strict=True))
        for key, some in found["players"].items()
        for row in some
    ]
    return [row for row in rows if all(row[k] == v for k, v in wanted.items())]


def shifts(found: Found) -> str:
    """In how many cells calibration surely moves the drop, and the plateau."""
    cfg = found["config"]
    rows = []
    for stream in dict.fromkeys(c["stream"] for c in cascade_cells(found)):
        for calibration in cfg["calibrations"][1:]:
            cells = cascade_cells(found, stream=stream, calibration=calibration)
            drop = [sign(*c["drop_ms_change"]) for c in cells if c["drop_ms_change"][0] is not None]
            level = [sign(*c["plateau_change"]) for c in cells if c["link"] == next(iter(cfg["links"]))]
            both = sum(sign(*c["drop_ms_change"]) > 0 and sign(*c["plateau_change"]) < 0 for c in cells)
            moved = [c["offloaded"][0] for c in cells]
            raw = [c["offloaded"][0] for c in cascade_cells(found, stream=stream, calibration=cfg["calibrations"][0])]
            rows.append(
                [
                    f"{stream}, {calibration}",
                    f"{drop.count(1)} / {drop.count(-1)} of {len(drop)}",
                    f"{level.count(-1)} / {level.count(1)} of {len(level)}",
                    f"{both} of {len(cells)}",
                    f"{percent(sum(raw) / len(raw))} → {percent(sum(moved) / len(moved))}",
                ]
            )
    heads = ["stream, calibration", "drop right / left", "plateau down / up", "right and down", "offloaded %"]
    return (
        grid(heads, rows)
        + f"\n\nCells: {len(cfg['exits'])} cascades × {len(cfg['targets'])} targets × {len(cfg['links'])} links, for "
        f"the drop those in which some batch is right often enough, for the plateau those of one link alone: what is "
        f"sent does not depend on it; counted are differences to {cfg['calibrations'][0]} whose "
        f"95 % interval over {cfg['seeds']} seeds, paired and not corrected for their number, leaves out 0."
    )


def drops(found: Found) -> str:
    """Drop and plateau of each cascade at the target that each stream is shown at."""
    cfg = found["config"]
    links = list(cfg["links"])
    rows = []
    for stream in dict.fromkeys(c["stream"] for c in cascade_cells(found)):
        for k in cfg["exits"]:
            own = {
                x: cascade_cells(found, stream=stream, link=x, exits=k, target=found["shown"][stream]) for x in links
            }
            one = own[links[0]]
            cells = [several(one, "offloaded", percent), several(one, "accuracy", percent)]
            cells += [several(own[x], "drop_ms", lambda v: number(v, 0)) for x in links]
            rows.append([f"{stream}, {k}", f"{found['shown'][stream]:g}", *cells, several(one, "plateau", percent)])
    names = " / ".join(cfg["calibrations"])
    heads = ["stream, exits", "p_tar", "offloaded %", "accuracy %", *(f"drop over {x}, ms" for x in links), "plateau %"]
    return f"{names}.\n\n" + grid(heads, rows)


def honesty(found: Found) -> str:
    """How far each exit can be believed."""
    rows = []
    for stream, some in found["honesty"].items():
        for name, here in some.items():
            cells = [f"{percent(e)} ({100.0 * g:+.1f})" for e, g in zip(here["ece"], here["gap"], strict=True)]
            rows.append([f"{stream}, {name}", *cells])
    heads = ["stream, calibration", *(f"exit {k + 1}" for k in range(found["exits"]))]
    note = "Calibration error of each exit, in points (15 bins), and confidence less accuracy."
    return f"{note}\n\n" + grid(heads, rows)


def targets(found: Found) -> str:
    """Drop and plateau of one cascade at each target, over the first and the last constant of the links."""
    cfg = found["config"]
    links = list(cfg["links"])
    rows = []
    for target in cfg["targets"]:
        own = {x: cascade_cells(found, stream=PRISTINE, link=x, exits=cfg["cascade"], target=target) for x in links}
        one = own[links[0]]
        cells = [several(one, "offloaded", percent), several(one, "accuracy", percent)]
        cells += [several(own[x], "drop_ms", lambda v: number(v, 0)) for x in links]
        change = " / ".join(
            f"{percent(row['plateau'][0])}" + (f" ±{percent(row['plateau'][1])}" if row["plateau"][1] else "")
            for row in one
        )
        rows.append([f"{target:g}", *cells, change])
    heads = ["p_tar", "offloaded %", "accuracy %", *(f"drop over {x}, ms" for x in links), "plateau %"]
    return f"Pristine images, cascade of {cfg['cascade']}; {' / '.join(cfg['calibrations'])}.\n\n" + grid(heads, rows)


def calibrated(found: Found) -> str:
    """What calibration changes for each player, without a price and where nothing waits."""
    cfg = found["config"]
    deadline = middle(found)
    at = cfg["deadlines"].index(deadline)
    rows = []
    for key, title in found["titles"].items():
        cells = [title]
        for link in cfg["links"]:
            own = player_cells(found, player=key, link=link, arrivals=CALM, priced=False)
            for metric in ("missed", "right"):
                cells.append(" / ".join(percent(row[metric]["mean"][at]) for row in own))
        rows.append(cells)
    heads = ["policy", *(f"{x}: {what}" for x in cfg["links"] for what in ("missed %", "right in time %"))]
    return f"Deadline {deadline:g} ms; {' / '.join(cfg['calibrations'])}.\n\n" + grid(heads, rows)


def price(found: Found) -> str:
    """What a price on a missed deadline brings each policy, over all links and priced deadlines."""
    cfg = found["config"]
    rows = []
    for key, title in found["titles"].items():
        cells = [title]
        for arrivals in ARRIVALS:
            own = player_cells(found, player=key, arrivals=arrivals, priced=True)
            for metric, better in (("missed_change", -1), ("right_change", 1)):
                changes = [pair for row in own for pair in zip(row[metric]["mean"], row[metric]["half"], strict=True)]
                signs = [sign(*pair) for pair in changes]
                mean = sum(m for m, _ in changes) / len(changes)
                cells += [f"{100.0 * mean + 0.0:+.1f}", f"{signs.count(better)} / {signs.count(-better)}"]
        rows.append(cells)
    n = len(cfg["links"]) * len(cfg["priced"])
    heads = ["policy"]
    for told in ARRIVALS.values():
        heads += [f"{told}: missed", "fewer / more", "right in time", "more / fewer"]
    return (
        f"Points of a percentage, mean over {n} cells ({len(cfg['links'])} links × {len(cfg['priced'])} deadlines), "
        f"and in how many of them the 95 % interval of the paired difference leaves out 0.\n\n" + grid(heads, rows)
    )


def three(found: Found, arrivals: str) -> str:
    """Missed deadlines and right answers in time, without and with the price, at each deadline of the tables."""
    cfg = found["config"]
    parts = []
    for deadline in cfg["tables"]:
        plain, priced = cfg["deadlines"].index(deadline), cfg["priced"].index(deadline)
        rows = []
        for key, title in found["titles"].items():
            cells = [title]
            for link in cfg["links"]:
                here = {"player": key, "link": link, "arrivals": arrivals, "calibration": cfg["calibrations"][-1]}
                without = player_cells(found, **here, priced=False)[0]
                with_ = player_cells(found, **here, priced=True)[0]
                for metric in ("missed", "right"):
                    cells.append(
                        f"{percent(without[metric]['mean'][plain])} → {percent(with_[metric]['mean'][priced])} "
                        f"±{percent(with_[metric]['half'][priced])}"
                    )
            rows.append(cells)
        heads = ["policy", *(f"{x}: {what}" for x in cfg["links"] for what in ("missed %", "right in time %"))]
        parts.append(f"Deadline {deadline:g} ms.\n\n" + grid(heads, rows))
    return "\n\n".join(parts)


def failing(found: Found) -> str:
    """Batches that are late in the mean, or not right often enough, without and with the price."""
    cfg = found["config"]
    deadline = middle(found)
    plain, priced = cfg["deadlines"].index(deadline), cfg["priced"].index(deadline)
    rows = []
    for key, title in found["titles"].items():
        cells = [title]
        for arrivals in ARRIVALS:
            for link in cfg["links"]:
                here = {"player": key, "link": link, "arrivals": arrivals, "calibration": cfg["calibrations"][-1]}
                without = player_cells(found, **here, priced=False)[0]["batches"]
                with_ = player_cells(found, **here, priced=True)[0]["batches"]
                cells.append(
                    f"{percent(without['mean'][plain])} → {percent(with_['mean'][priced])} "
                    f"±{percent(with_['half'][priced])}"
                )
        rows.append(cells)
    heads = ["policy", *(f"{told}, {x}" for told in ARRIVALS.values() for x in cfg["links"])]
    return f"Missed batches, %; deadline {deadline:g} ms, p_tar {cfg['target']:g}.\n\n" + grid(heads, rows)


def queue(found: Found) -> str:
    """What the queue changes, without a price: latency, drops, and missed deadlines."""
    cfg = found["config"]
    deadline = middle(found)
    at = cfg["deadlines"].index(deadline)
    rows = []
    for key, title in found["titles"].items():
        cells = [title]
        for link in cfg["links"]:
            here = {"player": key, "link": link, "calibration": cfg["calibrations"][-1], "priced": False}
            calm, busy = (player_cells(found, **here, arrivals=a)[0] for a in (CALM, BUSY))
            cells.append(f"{number(calm['latency_ms'][0], 0)} → {number(busy['latency_ms'][0], 0)}")
            cells.append(percent(busy["dropped"][0]))
            cells.append(f"{percent(calm['missed']['mean'][at])} → {percent(busy['missed']['mean'][at])}")
        rows.append(cells)
    heads = ["policy"]
    heads += [
        f"{x}: {what}" for x in cfg["links"] for what in ("mean ms", "dropped %", f"missed at {deadline:g} ms, %")
    ]
    return grid(heads, rows)


def setting(found: Found) -> str:
    """What was played where."""
    cfg = found["config"]
    edge, cloud = found["edge_ms"], found["cloud_ms"]
    rows = [
        ["accuracy of each exit, %", " / ".join(percent(a) for a in found["accuracy"])],
        ["edge, ms up to each exit", " / ".join(number(ms, 0) for ms in edge[1:])],
        ["cloud, ms from the input on", number(cloud[0], 1)],
        ["links", "; ".join(f"{name}: {told}" for name, told in found["links"].items())],
        ["payloads", "codecs as measured" if found["payloads"] else "feature maps as they are"],
        [
            "requests",
            f"{cfg['horizon']:,} of {found['images']:,} test images, {cfg['seeds']} seeds, batches of {cfg['batch']}",
        ],
        ["nothing waits", f"one request every {number(cfg['calm_ms'], 0)} ms"],
        ["with a queue", f"Poisson, {number(1e3 * cfg['load'] / edge[-1], 2)} a second, {cfg['buffer']} may wait"],
        ["prices", f"{cfg['second']:g} a second, {cfg['missed']:g} a missed deadline, mu {cfg['mu']:g}"],
    ]
    rows += [[found["titles"][key], f"`{spec}`"] for key, spec in found["specs"].items()]
    return grid(["what", "value"], rows, 2)


def middle(found: Found) -> float:
    """The deadline of the tables that show one alone."""
    shown: list[float] = found["config"]["tables"]
    return shown[len(shown) // 2]


def verdicts(found: Found) -> str:
    """The answers in short, for who waits at a terminal."""
    return f"{shifts(found)}\n\n{price(found)}"


SECTIONS: dict[str, Callable[[Found], str]] = {
    "setting": setting,
    "shifts": shifts,
    "honesty": honesty,
    "drops": drops,
    "targets": targets,
    "calibrated": calibrated,
    "price": price,
    "three_calm": lambda found: three(found, CALM),
    "three_busy": lambda found: three(found, BUSY),
    "failing": failing,
    "queue": queue,
}


def fill(text: str | None, kept: dict[str, Found]) -> str:
    """The README with each section between its markers written anew; without a README, the sections alone."""
    own = {name: {s: partial(made, found) for s, made in SECTIONS.items()} for name, found in kept.items()}
    return filled_by_cache(text, "Missed deadlines", own)
