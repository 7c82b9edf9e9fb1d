"""`offramp extract`: images and weights in, confidence cache out; one forward pass per condition gives all exits."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offramp.environments.cache import SPLITS
from offramp.experiments.images import splits_of
from offramp.experiments.refusals import in_one_line
from offramp.models.data import Split
from offramp.models.distort import Distortion
from offramp.models.experts import SCHEMA as EXPERTS
from offramp.models.experts import Experts
from offramp.models.extract import Progress as Reporter
from offramp.models.extract import extract
from offramp.models.fitting_set import FEWEST
from offramp.models.router import DEFAULT, load_router
from offramp.models.router import read_card as read_router_card
from offramp.models.weights import HERE as SHIPPED
from offramp.models.weights import load_weights, read_card

SAMPLES = 8


def samples(chosen: Split, distortions: Sequence[Distortion], *, shrink: int = 1) -> Image.Image:
    """A sheet: one row per condition, the same few images in each, their sides divided by `shrink`."""
    rows = [np.concatenate(list(d(chosen.images, chosen.index)), axis=1) for d in distortions]
    return Image.fromarray(np.concatenate(rows, axis=0)).reduce(shrink)


@contextmanager
def reported(console: Console, distortions: Sequence[Distortion]) -> Iterator[Reporter]:
    """A bar for each condition, and a line when it is done; what is given goes to an extraction as its `progress`."""
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        tasks = {d.name: bar.add_task(d.name, total=None) for d in distortions}

        def progress(condition: str, done: int, total: int, rate: float) -> None:
            bar.update(tasks[condition], completed=done, total=total)
            if done == total:
                console.print(f"{condition}: {'was there' if np.isnan(rate) else f'{rate:.0f} images a second'}")

        yield progress


def run(cfg: DictConfig) -> Path:
    """Extract as the configuration says and return the path of the cache that ships with the package."""
    console = Console()
    torch.set_num_threads(cfg.threads)
    splits = splits_of(cfg)
    check_validation(splits)
    distortions: list[Distortion] = list(instantiate(cfg.conditions, _convert_="all"))
    network = instantiate(cfg.network).to(memory_format=torch.channels_last)
    card = load_weights(network, file_of(cfg.weights, f"{cfg.name}.safetensors"))
    heads = file_of(cfg.experts, f"{cfg.name}.experts.safetensors")
    experts, which = Experts.load(network, heads), DEFAULT if cfg.router is None else Path(cfg.router)
    router = load_router(which)
    console.print(f"{cfg.name}: {card['epochs']} epochs, seed {card['seed']}; experts {', '.join(experts.families)}")
    folder = Path(cfg.folder)
    with reported(console, distortions) as progress:
        found = extract(experts, router, splits, distortions, folder, progress)
    test = found.split == SPLITS.index("test")
    place = np.where(test, np.cumsum(test), np.cumsum(~test)) - 1  # of each sample in its split
    cards = {"network": card, "experts": read_card(heads, EXPERTS), "router": read_router_card(which)}
    notes = {"network": cfg.name, "seed": card["seed"], "cards": cards}
    every = folder / f"{cfg.name}.all.safetensors"
    found.cache(np.ones_like(test), notes=notes).save(every)
    small = folder / f"{cfg.name}.safetensors"
    found.cache(test | (place < cfg.small.validation), notes=notes).save(small, small=True)
    logits = folder / f"{cfg.name}.logits.safetensors"
    found.table(place < np.where(test, cfg.small.logits, cfg.small.validation)).save(logits)
    samples(splits["test"].take(SAMPLES), distortions).save(folder / f"{cfg.name}.samples.png")
    for path in (every, small, logits):
        console.print(f"{path}, {path.stat().st_size / 1e6:.1f} MB")
    return small


def check_validation(splits: Mapping[str, Split]) -> None:
    """Refuse too few validation images before the passes, which take long, and not after them."""
    few = len(splits["validation"].labels)
    if few < FEWEST:
        raise ValueError(f"validation images are {few}, allowed are {FEWEST} or more: temperatures are fitted on them")


def file_of(given: str | None, shipped: str) -> Path:
    """A path that was given, or that of a file which ships with the package."""
    return SHIPPED / shipped if given is None else Path(given)


@hydra.main(config_path="pkg://offramp.conf", config_name="extract", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp extract`."""
    run(cfg)


if __name__ == "__main__":
    main()
