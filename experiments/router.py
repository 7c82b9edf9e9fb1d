"""`offramp router`: trains both routers, counts their answers by level, writes weights, cards and a figure."""

import os
from pathlib import Path
from typing import Any

import hydra
import matplotlib
import numpy as np
import torch
from hydra.utils import instantiate
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich.console import Console

from offramp.experiments.images import splits_of
from offramp.experiments.refusals import in_one_line
from offramp.models.data import Split
from offramp.models.families import FAMILIES, Level
from offramp.models.router import Router, save_router
from offramp.models.router_training import RouterSpec, confusion, fit_linear, fit_spectrum, quarter_each, time_of

matplotlib.use("Agg")
COLOURS = dict(zip(FAMILIES, ("#7f7f7f", "#1b6ca8", "#d1495b", "#e0a000"), strict=True))


def levels_of(part: DictConfig) -> list[Level]:
    """The levels that a part of the configuration names, in its order."""
    return [Level(str(corruption), float(value)) for corruption, values in part.items() for value in values]


def card(router: Router, splits: dict[str, Split], spec: RouterSpec, cfg: DictConfig) -> dict[str, Any]:
    """What a reader must know about a router: where it comes from, what it can do, what it costs."""
    rows = confusion(router, splits["test"], levels_of(cfg.levels), seed=spec.seed + 2)
    right = {(r["corruption"], r["level"]): r["right"] for r in rows}
    clear = [right[level.corruption, level.value] for level in levels_of(cfg.detectable)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    many = splits["test"].images[: cfg.timing.batch]
    times = {n: time_of(router, many[:n], repeats=cfg.timing.repeats) for n in (len(many), 1)}
    torch.set_num_threads(threads)
    return {
        "kind": router.kind,
        "families": list(FAMILIES),
        "input": f"{router.side} x {router.side} x 3, uint8",
        "parameters": sum(p.numel() for p in router.parameters()),
        "multiply-accumulates per image": router.macs,
        "training images": f"{len(splits['train'].labels)}, a quarter in each family, level drawn uniformly",
        "data sha256 (train)": splits["train"].hash,
        "data sha256 (test)": splits["test"].hash,
        "seeds": f"train {spec.seed}, validation {spec.seed + 1}, test {spec.seed + 2}",
        "evaluated on": f"{len(splits['test'].labels)} test images at each level",
        "right on detectable blur and noise": round(float(np.mean(clear)), 4),
        "right on pristine": right["pristine", 0.0],
        **{f"microseconds per image, batch of {n}": round(t, 1) for n, t in times.items()},
        "timed on": f"{os.cpu_count()} vCPU, one thread, least of {cfg.timing.repeats}",
        "torch": torch.__version__.split("+")[0],
        "confusion": rows,
    }


def render(name: str, facts: dict[str, Any]) -> str:
    """The card as Markdown."""
    lines = [f"# Router card: {name}", "", "Written by `offramp router`; do not edit.", ""]
    lines += ["| field | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts.items() if key != "confusion"]
    lines += ["", "Share of images, in %, sent to each family; the right one in bold.", ""]
    lines += ["| corruption | level | " + " | ".join(FAMILIES) + " |", "|---|--:|" + "--:|" * len(FAMILIES)]
    for row in facts["confusion"]:
        cells = [
            f"**{100 * share:.1f}**" if family == row["family"] else f"{100 * share:.1f}"
            for family, share in row["answers"].items()
        ]
        lines.append(f"| {row['corruption']} | {row['level']:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(cards: dict[str, dict[str, Any]]) -> Figure:
    """Where each router sends the images of each level: one stacked bar per level, one column per router."""
    height = 1.5 + 0.24 * max(len(c["confusion"]) for c in cards.values())
    made, axes = plt.subplots(1, len(cards), figsize=(5.5 * len(cards), height), sharey=True, squeeze=False)
    for ax, (name, facts) in zip(axes[0], cards.items(), strict=True):
        rows = facts["confusion"]
        left = np.zeros(len(rows))
        for family in FAMILIES:
            share = np.array([100.0 * r["answers"][family] for r in rows])
            ax.barh(np.arange(len(rows)), share, left=left, color=COLOURS[family], label=family, height=0.8)
            left += share
        names = ["pristine" if r["family"] == "pristine" else f"{r['corruption']} {r['level']:g}" for r in rows]
        ax.set(title=f"{name} router", xlabel="images sent to each family / %", xlim=(0.0, 100.0))
        ax.set_yticks(np.arange(len(rows)), names)
    axes[0][0].set_ylabel("corruption and level")
    axes[0][0].set_ylim(len(rows) - 0.5, -0.5)  # the first level on top
    handles, labels = axes[0][0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=len(FAMILIES), frameon=False)
    made.set_layout_engine("constrained")
    return made


def run(cfg: DictConfig) -> Path:
    """Train and judge as the configuration says and return the folder of weights, cards and figure."""
    console = Console()
    torch.set_num_threads(cfg.threads)
    splits = splits_of(cfg)
    spec: RouterSpec = instantiate(cfg.spec, _convert_="all")
    missing = [level for level in levels_of(cfg.detectable) if level not in levels_of(cfg.levels)]
    if missing:
        raise ValueError(f"detectable names {missing[0]}, allowed are those of levels")
    folder = Path(cfg.folder)
    folder.mkdir(parents=True, exist_ok=True)

    def progress(name: str, done: int, total: int, accuracy: float) -> None:
        console.print(f"{name}: {done} of {total}, validation accuracy {accuracy:.4f}")

    console.print("distorting images")
    training, validation = (
        quarter_each(splits[part], seed=spec.seed + i) for i, part in enumerate(("train", "validation"))
    )
    routers: dict[str, Router] = {
        "linear": fit_linear(training, validation, spec, progress),
        "spectrum": fit_spectrum(training, validation, spec, folder / "checkpoint.safetensors", progress),
    }
    cards = {}
    for name, router in routers.items():
        console.print(f"counting answers of the {name} router")
        cards[name] = card(router, splits, spec, cfg)
        path = folder / f"router_{name}.safetensors"
        save_router(router, path, cards[name])
        path.with_suffix(".md").write_text(render(path.stem, cards[name]), encoding="utf-8")
        for key in list(cards[name])[-7:-2]:
            console.print(f"  {key}: {cards[name][key]}")
    picture = figure(cards)
    picture.savefig(folder / "router_confusion.png", dpi=120)
    plt.close(picture)
    console.print(f"weights, cards and figure: {folder}")
    return folder


@hydra.main(config_path="pkg://offramp.conf", config_name="router", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp router`."""
    run(cfg)


if __name__ == "__main__":
    main()
