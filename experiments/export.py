"""`offramp export`: writes a network as ONNX files, stages or halves at each cut, and tries each in onnxruntime."""

from pathlib import Path

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from offramp.experiments.extract import file_of
from offramp.experiments.refusals import in_one_line
from offramp.models.experts import Experts
from offramp.models.families import FAMILIES
from offramp.models.onnx_export import export_onnx, export_stages
from offramp.models.weights import load_weights

PARTS = ("stages", "halves")


def run(cfg: DictConfig) -> Path:
    """Write the files as the configuration says and return their folder."""
    console = Console()
    if cfg.parts not in PARTS:
        raise ValueError(f"parts is {cfg.parts!r}, allowed are {PARTS}")
    torch.set_num_threads(cfg.threads)
    network = instantiate(cfg.network)
    load_weights(network, file_of(cfg.weights, f"{cfg.name}.safetensors"))
    heads = None
    if cfg.expert is not None:
        if cfg.expert not in FAMILIES:
            raise ValueError(f"expert is {cfg.expert!r}, allowed are {FAMILIES}, or null for the network's own exits")
        heads = Experts.load(network, file_of(cfg.experts, f"{cfg.name}.experts.safetensors"))[cfg.expert]
    folder = Path(cfg.folder)
    if cfg.parts == "stages":
        written = export_stages(network, folder, heads=heads)
    else:
        written = export_onnx(network, folder, cuts=cfg.cuts, heads=heads)
    for part in written:
        size = part.path.stat().st_size / 1e6
        console.print(f"{part.path}: {part.reads} -> {', '.join(part.gives)}; {size:.1f} MB, gap {part.gap:.1e}")
    return folder


@hydra.main(config_path="pkg://offramp.conf", config_name="export", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp export`."""
    run(cfg)


if __name__ == "__main__":
    main()
