"""`offramp extract`: images and weights in, confidence cache out; one forward pass per condition gives all exits."""

from pathlib import Path

import hydra
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offramp.models.data import Split
from offramp.models.distort import Distortion
from offramp.models.extract import extract
from offramp.models.weights import HERE as SHIPPED
from offramp.models.weights import load_weights

SAMPLES = 8


def samples(split: Split, distortions: list[Distortion]) -> Image.Image:
    """A sheet: one row per condition, the same few images in each, 32 x 32 pixels apiece."""
    chosen = split.take(SAMPLES)
    rows = [np.concatenate(list(d(chosen.images, chosen.index)), axis=1) for d in distortions]
    return Image.fromarray(np.concatenate(rows, axis=0))


def run(cfg: DictConfig) -> Path:
    """Extract as the configuration says and return the path of the cache."""
    console = Console()
    torch.set_num_threads(cfg.threads)
    splits: dict[str, Split] = instantiate(cfg.data)
    if cfg.images is not None:
        splits = {part: split.take(cfg.images) for part, split in splits.items()}
    distortions: list[Distortion] = list(instantiate(cfg.conditions, _convert_="all"))
    network = instantiate(cfg.network).to(memory_format=torch.channels_last)
    weights = Path(cfg.weights) if cfg.weights else SHIPPED / f"{cfg.name}.safetensors"
    card = load_weights(network, weights)
    console.print(f"weights: {weights}, {card['epochs']} epochs, seed {card['seed']}")
    folder = Path(cfg.folder)
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        tasks = {d.name: bar.add_task(d.name, total=None) for d in distortions}

        def progress(condition: str, done: int, total: int, rate: float) -> None:
            bar.update(tasks[condition], completed=done, total=total)
            if done == total:
                console.print(f"{condition}: {'was there' if np.isnan(rate) else f'{rate:.0f} images a second'}")

        cache = extract(network, splits, distortions, folder, progress, notes={"network": cfg.name})
    path = folder / f"{cfg.name}.cache.safetensors"
    cache.save(path)
    samples(splits["test"], distortions).save(folder / f"{cfg.name}.samples.png")
    console.print(f"cache: {path}, {path.stat().st_size / 1e6:.1f} MB")
    return path


@hydra.main(config_path="pkg://offramp.conf", config_name="extract", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp extract`."""
    run(cfg)


if __name__ == "__main__":
    main()
