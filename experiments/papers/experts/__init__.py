"""Expert branches: accuracy and offloading by level of distortion, from the record of the study `expert_branches`."""

from concurrent.futures import ThreadPoolExecutor

from matplotlib import pyplot as plt
from omegaconf import DictConfig

from offramp.experiments.earlier import open_cache, title
from offramp.experiments.expert_branches.pictures import levels as picture
from offramp.experiments.expert_branches.systems import EXPERTS, PRISTINE_CALIBRATED
from offramp.experiments.expert_branches.tables import PAPER, number, triple
from offramp.experiments.figures import STYLE, svg
from offramp.experiments.markdown import grid
from offramp.experiments.papers.page import (
    Check,
    Found,
    Page,
    Told,
    above,
    at_least,
    at_most,
    every,
    less,
    share,
    tally,
)
from offramp.experiments.papers.studies import record

SLACK = 0.02
KEPT = ("images", "target", "edge_exits", "levels", "routing", "config")


def measure(cfg: DictConfig, pool: ThreadPoolExecutor) -> Found:
    """Nothing anew: the level-by-level part of the study's record."""
    name = title(open_cache(cfg.cache), cfg.cache)
    kept = record(cfg, "expert_branches")
    if name not in kept:
        raise ValueError(f"the record of expert_branches holds {list(kept)}, allowed is one that holds {name}")
    return {"cache": name} | {k: kept[name][k] for k in KEPT}


def page(found: Found) -> Page:
    """The page of the claim."""
    target = found["target"]
    at = {(r["condition"], r["system"]): r for r in found["levels"] if r["target"] == target}
    rows: list[list[str]] = []
    more, honest, fallen, agree = list[Told](), list[Told](), list[Told](), list[Told]()
    there_more = [0, 0]  # levels at which experts offload more: in the paper, here
    for family, published in PAPER.items():
        for sigma, condition, reported, expert in published:
            if (condition, EXPERTS) not in at:
                continue
            was, now = at[condition, PRISTINE_CALIBRATED], at[condition, EXPERTS]
            gain, kept = (change(was, now, key, found["images"]) for key in ("accuracy", "edge_share"))
            more.append(at_least(gain, 0.0))
            honest.append(above(now["low"], now["high"], target - SLACK))
            fallen.append(above(-was["high"], -was["low"], SLACK - target))
            there = float(expert.split(" / ")[1]) - float(reported.split(" / ")[1])
            agree.append(at_least(kept, 0.0) if there > 0.0 else at_most(kept, 0.0))
            there_more = [there_more[0] + (there < 0.0), there_more[1] + (at_most(kept, 0.0) is True)]
            moved = f"{-there:+.1f} / {-100.0 * kept['mean']:+.1f} ±{100.0 * kept['half']:.1f}"
            rows.append([family, f"sigma {sigma}", reported, expert, condition, triple(was), triple(now), moved])
    n = len(rows)
    checks = [
        Check(what="levels at which experts are more accurate", wanted="all", found=tally(more), holds=every(more)),
        Check(
            what=f"levels at which the edge keeps the target {target:g}, within {SLACK:g}",
            wanted="all with experts",
            found=f"{tally(honest)}; pristine exits: {sum(x is False for x in fallen)}",
            holds=every(honest),
        ),
        Check(
            what="pristine exits fall below the target at strong levels",
            wanted="yes",
            found=f"below at {tally(fallen)} levels",
            holds=True if True in fallen else None if None in fallen else False,
        ),
        Check(
            what="experts offload less where the paper's do, and more where they do",
            wanted="the sign of the change agrees at all levels",
            found=tally(agree),
            holds=every(agree),
        ),
    ]
    heads = [
        "distortion",
        "paper: level",
        "paper: pristine",
        "paper: expert",
        "here: level",
        "here: pristine, calibrated",
    ]
    table = grid([*heads, "here: experts", "change of offloads, points: paper / here"], rows, 2)
    strongest = at.get(("noise 40", PRISTINE_CALIBRATED))
    sure = "" if strongest is None else f" (noise 40: {number(strongest['edge_share'], 0, 100.0)} % of images)"
    return Page(
        title="Expert branches: what do they change, level by level?",
        hypothesis="Side branches trained for blur and for noise, over shared layers, raise the accuracy at every "
        "level, keep the accuracy that is asked of the edge, and so improve what is offloaded.",
        source="arXiv 2108.09343 (GLOBECOM 2021); its numbers are those of the result files beside its code, at "
        "target .8.",
        setting=f"`{found['cache']}`, {found['images']:,} test images under each condition, a cascade of "
        f"{found['edge_exits']} edge exits; router and calibration as in "
        "[expert_branches](../../expert_branches/README.md), whose record this page reads. Levels stand side by side "
        "in order, and are not equally strong; the paper's noise wraps around modulo 256. "
        "A change between two rows of the same images is judged by the interval of independent shares, which is wider "
        "than it need be; the paper gives none.",
        tables={f"At target {target:g}: overall accuracy / answered at the edge / accuracy of the edge, %": table},
        pictures={"experts": draw(found)},
        checks=checks,
        why=[
            "Accuracy, wherever the intervals can tell, and honesty are reproduced: what the edge answers stays "
            "right, where the exits for undistorted images go on answering and are wrong.",
            f"Fewer offloads are not. Exits that know nothing of distortion stay sure of themselves{sure}, so that "
            f"honest ones send more at strong levels: here at {there_more[1]} of {n}, in the paper at "
            f"{there_more[0]}. The signs differ at weak levels, where the experts here are sure of more, and at "
            "middle ones, where these exits, unlike the paper's, had answered about half of the images and were "
            "wrong. What improves is who is sent.",
            "The figure shows pristine exits without calibration too: they are surer still.",
        ],
    )


def change(was: Found, now: Found, key: str, n: int) -> dict[str, float]:
    """What experts change of a share of n images."""
    return less(share(now[key], n), share(was[key], n))


def draw(found: Found) -> str:
    """The study's own figure of the levels."""
    with plt.rc_context(STYLE | {"svg.hashsalt": "experts"}):
        return svg(picture(found["cache"], found), "experts") + "\n"
