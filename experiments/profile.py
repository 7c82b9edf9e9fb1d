"""`offramp profile`: times a network on the machine at hand, part by part, and writes its device profile."""

from pathlib import Path

import hydra
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from offramp.environments.devices import DeviceProfile
from offramp.experiments.refusals import in_one_line
from offramp.models.experts import Experts
from offramp.models.router import DEFAULT, load_router
from offramp.models.timing import measure
from offramp.models.weights import HERE as SHIPPED
from offramp.models.weights import load_weights

EXITS = ("experts", "own")


def table(device: DeviceProfile) -> Table:
    """One row for each part: milliseconds of one image, shares of time and work, energy where the power is known."""
    assert device.work is not None
    work = device.work
    rows: list[tuple[str, float, tuple[float, float] | None, int]] = []
    if device.router_quartiles_ms is not None:
        rows.append(("router", device.router_ms, device.router_quartiles_ms, work.router_macs))
    for i in range(device.exits):
        rows.append((f"segment {i + 1}", device.segment_ms[i], device.segment_quartiles_ms[i], work.segment_macs[i]))
        rows.append((f"head {i + 1}", device.head_ms[i], device.head_quartiles_ms[i], work.head_macs[i]))
    rows.append(("all", float(device.edge_ms("prefix")[-1]), None, int(work.edge_macs("prefix")[-1])))
    _, time, _, macs = rows[-1]
    title = f"{device.name}: milliseconds for one image, threads {device.threads}, batch {device.batch}"
    made = Table(title=title, title_justify="left", caption="MACs: multiply-accumulates, M: million")
    heads = ["part", "median", "lower", "upper", "time %", "MACs %", "M MACs"]
    for head in heads + ["mJ"] * (device.power_w is not None):
        made.add_column(head, justify="left" if head == "part" else "right", no_wrap=True)
    for part, ms, quartiles, own in rows:
        cells = [part, f"{ms:.3f}", *(["", ""] if quartiles is None else [f"{q:.3f}" for q in quartiles])]
        cells += [f"{100.0 * ms / time:.1f}", f"{100.0 * own / macs:.1f}", f"{own / 1e6:.3f}"]
        made.add_row(*cells, *([f"{device.energy_mj(ms):.2f}"] if device.power_w is not None else []))
    return made


def run(cfg: DictConfig) -> Path:
    """Measure as the configuration says and return the path of the profile."""
    console = Console()
    if cfg.exits not in EXITS:
        raise ValueError(f"exits is {cfg.exits!r}, allowed are {EXITS}")
    network = instantiate(cfg.network).to(memory_format=torch.channels_last)
    weights = SHIPPED / f"{cfg.name}.safetensors" if cfg.weights is None else Path(cfg.weights)
    load_weights(network, weights)
    experts, router = None, None
    if cfg.exits == "experts":
        heads = SHIPPED / f"{cfg.name}.experts.safetensors" if cfg.experts is None else Path(cfg.experts)
        experts = Experts.load(network, heads)
        router = load_router(DEFAULT if cfg.router is None else Path(cfg.router))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(cfg.name, total=cfg.repeats)
        timing = measure(
            network,
            experts=experts,
            router=router,
            batch=cfg.batch,
            warm_up=cfg.warm_up,
            repeats=cfg.repeats,
            threads=cfg.threads,
            pace=cfg.pace,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    device = timing.profile(name=cfg.machine, power_w=cfg.power_w)
    folder = Path(cfg.folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cfg.name}.device.json"
    device.save(path)
    console.print(table(device))
    console.print(f"network {device.network}, weights {weights.name}; {device.source}")
    spread = 100.0 * (np.percentile(timing.whole, 75) - np.percentile(timing.whole, 25)) / np.median(timing.whole)
    console.print(
        f"segments and last head: {np.sum(device.segment_ms) + device.head_ms[-1]:.3f} ms one by one, "
        f"{device.whole_ms:.3f} ms in one go: {100.0 * timing.gap:+.1f} % "
        f"(quartiles of the latter {spread:.1f} % apart)"
    )
    console.print(f"{path}")
    return path


@hydra.main(config_path="pkg://offramp.conf", config_name="profile", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp profile`."""
    run(cfg)


if __name__ == "__main__":
    main()
