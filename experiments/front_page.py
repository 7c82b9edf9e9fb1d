"""The blocks of README and of the page of results, made of what the studies and the demo left: ends `make studies`.

`python -m offramp.experiments.front_page` in the folder of the repository fills every block, copies the picture of the
demo, and draws the sheet of corruptions.  A number of these pages that is not in a block is refused by a test.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image
from rich.console import Console

from offramp.environments import ConfidenceCache
from offramp.environments.routing import experts_of
from offramp.experiments.calibration.record import unpacked
from offramp.experiments.calibration.tables import LIMIT
from offramp.experiments.compare import shown
from offramp.experiments.corruptions import sheet
from offramp.experiments.earlier import write
from offramp.experiments.headline.playing import BEST, FIRST, PLAIN, SEND, WHOLE
from offramp.experiments.joint_policy.sums import totals
from offramp.experiments.joint_policy.tables import spread
from offramp.experiments.link_change.tables import claim
from offramp.experiments.markdown import grid
from offramp.experiments.written import RESULT, filled
from offramp.models.data import Split

Found = dict[str, Any]
Section = Callable[[], str]
PAGES = ("README.md", "docs/results/index.md")
DEMO = "runs/demo"
PICTURE = f"{DEMO}/figures/default-isplitee.svg"
SHEET, SIDE, IMAGE = "tests/data/cifar10_test_first_200.png", 32, 23  # test images in rows; the one that is shown
SHOWN = ("pristine", "blur 0.5", "blur 1.0", "blur 2.0", "noise 5", "noise 20")
RANKED = ("joint", "joint_at_the_cut", "hi_lcb", "adaee_aware", "static", "adaee", "splitee", "isplitee")
PLACES = {  # cases of the study of links, by what is best there
    "edge and cloud compete (3G with the board, 4G with the phone)": ("3g board", "4g phone"),
    "the edge should keep everything (3G with the phone)": ("3g phone",),
    "everything should be sent at once (4G with the board)": ("4g board",),
}


def record(root: Path, study: str) -> Found:
    """What a study left."""
    found: Found = json.loads((root / "experiments" / study / RESULT).read_text(encoding="utf-8"))
    return found


def percent(value: Found) -> str:
    """A share as percent, with the half-width of its interval."""
    return shown(value, 100, 1)


def plain(value: Found) -> str:
    """A percentage or points, with the half-width of its interval."""
    return shown(value, 1, 1)


def demo(root: Path) -> str:
    """Every policy in the three worlds of the demo: cost saved, and accuracy with its change."""
    worlds = json.loads((root / DEMO / "summary.json").read_text(encoding="utf-8"))["worlds"]
    rows = []
    for policy in dict.fromkeys(p for world in worlds.values() for p in world):
        cells = []
        for world in worlds.values():
            if policy in world:
                one = world[policy]
                right = f"{100 * one['accuracy']['mean']:.1f} ({percent(one['accuracy_change'])})"
                cells += [percent(one["cost_saved"]), right]
            else:
                cells += ["not offered", ""]
        rows.append([f"`{policy}`", *cells])
    heads = [text for world in worlds for text in (f"`{world}`: saved %", "accuracy % (change)")]
    return grid(["policy", *heads], rows)


def tables(root: Path) -> str:
    """The demo's own tables."""
    return (root / DEMO / "table.md").read_text(encoding="utf-8").strip()


def exits() -> str:
    """What every exit is right for and how sure it is: exits for clean images, and those that the router picks."""
    cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")
    honest, routed = cache.calibrated("expert_exit"), experts_of(cache, "predicted")
    every = np.arange(len(cache.label))
    rows = []
    for name in SHOWN:
        at = cache.condition(name)
        picked = routed[at]
        family = cache.experts.index(name.partition(" ")[0])
        ones = (
            (cache.prediction[at, 0], cache.confidence[at, 0]),
            (cache.prediction[at, picked, every], honest.confidence[at, picked, every]),
        )
        cells = []
        for said, sure in ones:
            right = (said == cache.label[:, None]).mean(axis=0)
            cells += [" ".join(f"{100 * r:.1f}" for r in right), f"{sure[:, -1].mean():.2f}"]
        rows.append([name, *cells, f"{100 * (picked == family).mean():.1f}"])
    heads = ["condition", "exits for clean images, right %", "last, mean confidence"]
    return grid([*heads, "routed experts, right %", "last, mean confidence", "routed as meant %"], rows)


def experts(root: Path) -> str:
    """What experts gain over the exits for clean images, and how many of theirs miss the limit, cache by cache."""
    gained, honest = record(root, "expert_branches"), record(root, "calibration")["caches"]
    rows = []
    for name, found in gained.items():
        errors = [r["ece"] for r in unpacked(honest[name])["matched"] if r["calibration"] == "expert_exit"]
        over = f"{sum(e > LIMIT for e in errors)} of {len(errors)}"
        rows.append([f"`{name}`", f"{found['score']['points']:.1f}", over, f"{max(errors):.4f}"])
    gain = (
        "points gained over exits for clean images, calibrated or not, at equal cost: lower end of 95 %, least over "
        "costs and policies"
    )
    over = f"experts' exits with an expected calibration error above {LIMIT:g}"
    return grid(["cache", gain, over, "largest such error"], rows)


def joint(root: Path) -> str:
    """Regret, cost and accuracy of some policies over the suite of worlds."""
    found = record(root, "joint_policy")["mobilenet_v2_cifar10"]
    sums, rows = totals(found), []
    for key in RANKED:
        one = sums[key]
        own = key in found["policies"]
        title = found["policies"][key]["title"] if own else "best static arm in hindsight (an oracle)"
        tuned = own and found["policies"][key]["group"] == "published"
        cost = [f"{np.mean(one['cost']):.3f}", f"{100 * np.mean(one['accuracy']):.1f}"] if own else ["", ""]
        rows.append([title + ", as published, tuned" * tuned, spread(one["regret"]), *cost])
    return grid(["policy", "regret", "cost", "accuracy %"], rows)


def headline(root: Path) -> str:
    """What the whole saves and gains against everybody else in paper units, and against one in physical ones.

    Of the two intervals it shows the wider one, over images and streams together.
    """
    rows = []
    for name, found in record(root, "headline").items():
        lists = {one["prices"]: one for one in found["over_images"]["lists"]}
        claims = {c["against"]: c for c in lists["paper"]["claims"]}
        physical, best = lists["physical"]["against"][WHOLE], lists["paper"]["against"][BEST]
        both = [f"{plain(c['saved'])} %, {plain(c['gained'])}" for c in (claims[WHOLE], physical, best)]
        rows.append([
            f"`{name}`", *both[:2], plain(claims[PLAIN]["gained"]), f"{plain(claims[SEND]['saved'])} %",
            f"{plain(claims[FIRST]['saved'])} %", both[2],
        ])  # fmt: skip
    heads = ["cache", "final exit, same experts", "the same, physical prices", "final exit, plain network: points"]
    return grid([*heads, SEND, FIRST, "best single exit, by labels"], rows)


def links(root: Path) -> str:
    """On how many links the joint policy's latency is within the limit, with and without distortion together."""
    cases, rows = record(root, "link_change")["mobilenet_v2_imagenette"]["cases"], []
    for place, names in PLACES.items():
        ones = [claim(cases[f"{name}{how}"])["point"] for name in names for how in ("", " distorted")]
        holds, of = (sum(one[key] for one in ones) for key in ("holds", "of"))
        rows.append([place, f"{holds} of {of}", f"{max(one['worst'] for one in ones):.3f}"])
    return grid(["where", "holds on", "largest ratio"], rows)


def sections(root: Path) -> dict[str, Section]:
    """Every block by the name in its marker."""
    return {
        "demo": lambda: demo(root),
        "demo tables": lambda: tables(root),
        "exits": exits,
        "experts": lambda: experts(root),
        "joint policy": lambda: joint(root),
        "headline": lambda: headline(root),
        "links": lambda: links(root),
    }


def one_image(root: Path) -> Split:
    """The test image that the sheet of corruptions shows."""
    pixels = np.asarray(Image.open(root / SHEET).convert("RGB"))
    row, column = divmod(IMAGE, pixels.shape[1] // SIDE)
    image = pixels[row * SIDE :, column * SIDE :][:SIDE, :SIDE]
    return Split(images=image[None], labels=np.zeros(1, np.int64), index=np.array([IMAGE]))


def run(root: Path, pages: Iterable[str] = PAGES) -> None:
    """Fill the blocks of the pages, and renew the two pictures; says what is missing before anything is written."""
    for needed in (f"{DEMO}/summary.json", f"{DEMO}/table.md", PICTURE, SHEET):
        if not (root / needed).is_file():
            raise ValueError(f"{root / needed} is missing; it is left by `make demo` (or part of the repository)")
    made = {page: filled((root / page).read_text(encoding="utf-8"), sections(root)) for page in pages}
    for page, text in made.items():
        write(root / page, text)
    shutil.copyfile(root / PICTURE, root / "docs" / "choices.svg")
    matplotlib.use("Agg")
    figure = sheet(one_image(root))
    partial = root / "docs" / "corruptions.png.partial"
    figure.savefig(partial, format="png", dpi=110)
    plt.close(figure)
    partial.replace(partial.with_suffix(""))
    Console().print(f"filled: {', '.join(made)}", soft_wrap=True)


if __name__ == "__main__":
    run(Path.cwd())
