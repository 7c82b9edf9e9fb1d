"""`offramp payloads`: images and weights in, a confidence cache and its table of payloads out, codec by codec."""

import platform
import zlib
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import PIL
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import features
from rich.console import Console
from rich.table import Table

from offramp.environments.cache import ConfidenceCache
from offramp.environments.payloads import PayloadTable
from offramp.experiments.extract import SAMPLES, check_validation, file_of, reported, samples
from offramp.experiments.images import splits_of
from offramp.experiments.refusals import in_one_line
from offramp.models.codecs import Codec
from offramp.models.distort import Distortion
from offramp.models.payload_extract import TIMED, extract_payloads
from offramp.models.weights import load_weights


def summary(cache: ConfidenceCache, payloads: PayloadTable) -> Table:
    """One row per variant: mean bytes, and the last exit's accuracy in percent and mean confidence, of the test images.

    The first condition stands alone, all others are pooled.
    """
    test, table = cache.part("test"), payloads.part("test")
    right = table.prediction == test.label
    columns = [
        f"{what}\n{where}" for where in (table.conditions[0], "others") for what in ("bytes", "accuracy", "conf.")
    ]
    shown = Table("split", "codec", *columns, box=None)  # fits a terminal of 80 columns
    for v, (split, codec) in enumerate(zip(table.splits, table.codecs, strict=True)):
        cells = []
        for part in (slice(0, 1), slice(1, None)):
            if len(table.conditions[part]):
                sizes, good, sure = (a[part, v].mean() for a in (table.bytes, right, table.confidence))
                cells += [f"{sizes:,.0f}", f"{100.0 * good:.2f}", f"{sure:.4f}"]
        shown.add_row(str(split), codec, *cells)
    return shown


def versions() -> dict[str, Any]:
    """What coded and timed: payloads of images and zlib may differ by some bytes under another library."""
    return {
        "machine": platform.machine(),
        "timed images": TIMED,
        "timed threads": 1,
        "pillow": PIL.__version__,
        "jpeg": features.version("jpg"),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }


def run(cfg: DictConfig) -> Path:
    """Extract as the configuration says and return the path of the cache; the table of payloads lies beside it."""
    console = Console()
    torch.set_num_threads(cfg.threads)
    splits = splits_of(cfg, evenly=True)
    check_validation(splits)
    distortions: list[Distortion] = list(instantiate(cfg.conditions, _convert_="all"))
    codecs: list[Codec] = list(instantiate(cfg.codecs, _convert_="all"))
    network = instantiate(cfg.network).to(memory_format=torch.channels_last)
    card = load_weights(network, file_of(cfg.weights, f"{cfg.name}.safetensors"))
    console.print(f"{cfg.name}: {card['epochs']} epochs, seed {card['seed']}; {', '.join(c.name for c in codecs)}")
    folder = Path(cfg.folder)
    with reported(console, distortions) as progress:
        found = extract_payloads(network, codecs, splits, distortions, folder / "conditions", progress)
    every = np.ones(len(found.extraction.label), dtype=bool)
    notes = {"network": cfg.name, "seed": card["seed"]}
    cache = found.cache(every, notes={**notes, "cards": {"network": card}})
    payloads = found.table(every, notes={**notes, "made with": versions()})
    payloads.check(cache)
    written = [folder / f"{cfg.name}{kind}.safetensors" for kind in ("", ".payloads")]
    cache.save(written[0], small=cfg.small)
    payloads.save(written[1], small=cfg.small)
    sheet = samples(splits["test"].spread(SAMPLES), distortions, shrink=cfg.shrink)
    sheet.save(folder / f"{cfg.name}.samples.png")
    console.print(summary(cache, payloads))
    for path in written:
        console.print(f"{path}, {path.stat().st_size / 1e6:.1f} MB")
    return written[0]


@hydra.main(config_path="pkg://offramp.conf", config_name="payloads", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp payloads`."""
    run(cfg)


if __name__ == "__main__":
    main()
