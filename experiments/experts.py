"""`offramp experts`: trains one set of exits per family of distortions over a frozen backbone, resumes after a kill."""

from pathlib import Path

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offramp.experiments.images import splits_of
from offramp.experiments.refusals import in_one_line
from offramp.models.experts import Experts, ExpertSpec, evaluate_experts, render_card, train_experts
from offramp.models.weights import HERE as SHIPPED
from offramp.models.weights import load_weights


def run(cfg: DictConfig) -> Path:
    """Train as the configuration says and return the path of the experts."""
    console = Console()
    torch.set_num_threads(cfg.threads)
    splits = splits_of(cfg)
    network = instantiate(cfg.network).to(memory_format=torch.channels_last)
    card = load_weights(network, Path(cfg.weights) if cfg.weights else SHIPPED / f"{cfg.name}.safetensors")
    spec: ExpertSpec = instantiate(cfg.spec)
    experts = Experts(network, grid=list(cfg.heads.grid), hidden=cfg.heads.hidden)
    folder = Path(cfg.folder)
    folder.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, int] = {}

        def progress(what: str, done: int, total: int) -> None:
            task = tasks.setdefault(what, bar.add_task(what, total=total) if what not in tasks else 0)
            bar.update(task, completed=done)  # type: ignore[arg-type]
            if done == total and not console.is_terminal:
                console.print(f"{what}: {total} done")

        train_experts(experts, splits["train"], spec, folder, progress)
        found = evaluate_experts(experts, splits["test"].take(2_000), progress)
    path = folder / f"{cfg.name}.experts.safetensors"
    header = {"network": cfg.name, "network's seed": card["seed"], "spec": str(spec)}
    header["evaluated on"] = "the first 2,000 test images"
    experts.save(path, header | {"accuracy": found})
    path.with_suffix(".md").write_text(render_card(path.stem, header, found), encoding="utf-8")
    console.print(f"experts: {path}, {path.stat().st_size / 1e6:.1f} MB")
    return path


@hydra.main(config_path="pkg://offramp.conf", config_name="experts", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp experts`."""
    run(cfg)


if __name__ == "__main__":
    main()
