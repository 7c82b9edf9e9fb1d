"""`offramp train`: trains the network with exits, resumes after a kill, writes weights and their model card."""

import platform
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from offramp.experiments.images import splits_of
from offramp.experiments.refusals import in_one_line
from offramp.models.data import Split
from offramp.models.network import MultiExitNetwork
from offramp.models.train import TrainSpec, evaluate, train
from offramp.models.weights import half_precision, save_weights


def card(
    network: MultiExitNetwork, splits: dict[str, Split], spec: TrainSpec, name: str, exits: list[dict[str, float]]
) -> dict[str, Any]:
    """What a reader must know about the weights: where they come from and what they can do."""
    return {
        "network": name,
        "input": list(network.input_shape),
        "training images": len(splits["train"].labels),
        "data sha256 (train)": splits["train"].hash,
        "data sha256 (test)": splits["test"].hash,
        "epochs": spec.epochs,
        "seed": spec.seed,
        "loss weights": list(spec.loss_weights),
        "parameters": sum(p.numel() for p in network.parameters()),
        "stored as": "float16",
        "evaluated on": f"{len(splits['test'].labels)} clean test images, after rounding to float16",
        "torch": torch.__version__.split("+")[0],
        "machine": platform.machine(),
        "exits": exits,
    }


def run(cfg: DictConfig) -> Path:
    """Train as the configuration says and return the path of the weights."""
    console = Console()
    torch.set_num_threads(cfg.threads)
    splits = splits_of(cfg)
    spec: TrainSpec = instantiate(cfg.spec, _convert_="all")
    folder = Path(cfg.folder)
    folder.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=None, loss=float("nan"))

        def progress(epoch: int, done: int, total: int, loss: float) -> None:
            bar.update(
                task,
                description=f"epoch {epoch + 1} of {spec.epochs}",
                completed=epoch * total + done,
                total=spec.epochs * total,
                loss=loss,
            )
            if done == total and not console.is_terminal:
                console.print(f"epoch {epoch + 1} of {spec.epochs}: last loss {loss:.3f}")

        network = train(
            lambda: instantiate(cfg.network), splits["train"], spec, folder / "checkpoint.safetensors", progress
        )
    network.load_state_dict({k: v.float() for k, v in half_precision(network).items()}, strict=False)
    console.print("evaluating on validation and test images")
    for part in ("validation", "test"):
        exits = evaluate(network, splits[part])
        console.print(part, "accuracy by exit:", " ".join(f"{e['accuracy']:.4f}" for e in exits))
    path = folder / f"{cfg.name}.safetensors"
    save_weights(network, path, card(network, splits, spec, cfg.name, exits))
    console.print(f"weights: {path}")
    return path


@hydra.main(config_path="pkg://offramp.conf", config_name="train", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp train`."""
    run(cfg)


if __name__ == "__main__":
    main()
