"""`offramp corruptions`: one test image under every corruption at every severity of CIFAR-C, as a figure."""

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
from rich.table import Table

from offramp.experiments.refusals import in_one_line
from offramp.models.data import Split
from offramp.models.distort import PRESETS, SEVERITIES, Distortion, preset

matplotlib.use("Agg")
FORMATS = (".png", ".svg", ".pdf")
CHUNK = 1000


def change(split: Split, distortion: Distortion) -> float:
    """Mean absolute difference that a distortion makes to the values of a split, out of 255."""
    total = 0.0
    for first in range(0, len(split.images), CHUNK):
        images, index = split.images[first : first + CHUNK], split.index[first : first + CHUNK]
        total += float(np.abs(distortion(images, index).astype(np.int16) - images).sum())
    return total / split.images.size


def caption(distortion: Distortion) -> str:
    """The numbers that differ between severities: "amount 0.75, decay 2.5"."""
    numbers = {k: v for k, v in distortion.parameters.items() if not isinstance(v, str)}
    return ", ".join(f"{name} {value:g}" for name, value in numbers.items())


def sheet(split: Split) -> Figure:
    """One row for each corruption: the first image of the split as it is, then at severity 1..5."""
    style: Any = {"font.family": "sans-serif", "font.size": 9, "svg.fonttype": "none"}
    with matplotlib.rc_context(style):
        margins = {"left": 0.05, "right": 0.99, "bottom": 0.015, "top": 0.985, "wspace": 0.1, "hspace": 0.2}
        size = (8.4, 1.55 * len(PRESETS))
        figure, axes = plt.subplots(len(PRESETS), 1 + len(SEVERITIES), figsize=size, gridspec_kw=margins)
        for row, corruption in zip(axes, PRESETS, strict=True):
            row[0].imshow(split.images[0], interpolation="nearest")
            row[0].set_ylabel(corruption.replace("_", " "))
            for severity, cell in zip(SEVERITIES, row[1:], strict=True):
                distortion = preset(corruption, severity)
                cell.imshow(distortion(split.images[:1], split.index[:1])[0], interpolation="nearest")
                cell.set_xlabel(caption(distortion), fontsize=7)
            for cell in row:
                cell.set_xticks([])
                cell.set_yticks([])
        for text, cell in zip(["pristine", *(f"severity {s}" for s in SEVERITIES)], axes[0], strict=True):
            cell.set_title(text, fontsize=9)
    return figure


def run(cfg: DictConfig) -> Path:
    """Draw the figure, print how much each corruption changes the images, and return the figure's path."""
    out = Path(cfg.out)
    if out.suffix not in FORMATS:
        raise ValueError(f"out is {cfg.out}, allowed are names that end in {', '.join(FORMATS)}")
    torch.set_num_threads(cfg.threads)
    test: Split = instantiate(cfg.data)["test"]
    if not 0 <= cfg.image < len(test.images):
        raise ValueError(f"image is {cfg.image}, allowed is 0..{len(test.images) - 1}")
    if not 1 <= cfg.images <= len(test.images):
        raise ValueError(f"images is {cfg.images}, allowed is 1..{len(test.images)}")
    table = Table("severity", *(str(s) for s in SEVERITIES))
    table.title = f"mean absolute change of {cfg.images} test images, out of 255"
    for corruption in PRESETS:
        changes = (change(test.take(cfg.images), preset(corruption, s)) for s in SEVERITIES)
        table.add_row(corruption.replace("_", " "), *(f"{c:.2f}" for c in changes))
    console = Console()
    console.print(table)
    one = slice(cfg.image, cfg.image + 1)
    figure = sheet(Split(images=test.images[one], labels=test.labels[one], index=test.index[one]))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    figure.savefig(partial, format=out.suffix[1:], dpi=110)
    plt.close(figure)
    partial.replace(out)
    console.print(f"figure: {out}, {out.stat().st_size / 1e3:.0f} kB")
    return out


@hydra.main(config_path="pkg://offramp.conf", config_name="corruptions", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp corruptions`."""
    run(cfg)


if __name__ == "__main__":
    main()
