"""`offramp papers`: what the papers claim, measured again; a folder with a page for each claim."""

import importlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from offramp.experiments.compare import plain
from offramp.experiments.earlier import earlier, shortened, write
from offramp.experiments.papers.page import Page
from offramp.experiments.refusals import in_one_line, whole_numbers

CLAIMS = {
    "isplitee": "I-SplitEE: cost lower by 55 %, accuracy by at most 5 points, at every distortion",
    "splitee": "SplitEE: cost and accuracy against the price of an offload",
    "adaee": "AdaEE: logarithmic regret, and a context that changes",
    "experts": "Expert branches: accuracy and offloading by level of distortion",
    "calibration": "Calibration: outage and missed deadlines",
    "latency": "Expert branches: latency over three links",
}
QUICK = {
    "seeds": 2,
    "isplitee": {"conditions": ["pristine", "blur 1.0"], "offloads": [0.5, 1.0], "horizon": 400},
    "splitee": {"conditions": ["pristine"], "offloads": [1.0, 5.0], "thresholds": [0.85], "horizon": 400},
    "adaee": {"cuts": [1], "overheads": [0.05], "horizon": 2000, "change": {"rounds": 500}},
}
LEAST = {
    "seeds": 2,
    "threads": 1,
    "isplitee.horizon": 1,
    "splitee.horizon": 1,
    "adaee.horizon": 100,
    "adaee.change.rounds": 100,
}


def check(cfg: DictConfig) -> DictConfig:
    """The configuration as it is meant; refuses what no run can mean, before anything is written."""
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, QUICK)  # type: ignore[assignment]
    if cfg.claim not in ("all", *CLAIMS):
        raise ValueError(f"claim is {cfg.claim!r}, allowed are all, {', '.join(CLAIMS)}")
    whole_numbers(cfg, LEAST)
    return cfg


def run(cfg: DictConfig, folder: Path) -> dict[str, str]:
    """Measure one claim or all, and write a page for each; returns the verdicts."""
    cfg, console = check(cfg), Console()
    verdicts, summary = {}, folder / "result.json"
    kept = earlier(summary)
    for claim in CLAIMS if cfg.claim == "all" else [cfg.claim]:
        started, to = time.perf_counter(), folder / claim
        module = importlib.import_module(f"offramp.experiments.papers.{claim}")
        with ThreadPoolExecutor(cfg.threads) as pool:
            found = dict(shortened(plain(module.measure(cfg, pool))))
        found = json.loads(json.dumps(found, allow_nan=False))  # what is told is what is kept
        page: Page = module.page(found)
        to.mkdir(parents=True, exist_ok=True)
        write(to / "result.json", json.dumps(found, allow_nan=False) + "\n")
        for name, text in page.pictures.items():
            write(to / f"{name}.svg", text)
        write(to / "README.md", page.markdown(claim))
        verdicts[claim] = page.verdict
        kept[claim] = page.verdict
        console.print(f"{claim}: {page.verdict}; {time.perf_counter() - started:.0f} s", soft_wrap=True)
    kept = {claim: kept[claim] for claim in CLAIMS if claim in kept}
    write(summary, json.dumps(kept, indent=1) + "\n")
    rows = "\n".join(f"| [{CLAIMS[claim]}]({claim}/README.md) | {verdict} |" for claim, verdict in kept.items())
    about = "Each page has hypothesis, command, result, picture and verdict, and is written by `offramp papers`."
    write(
        folder / "README.md", f"# The papers, measured again\n\n{about}\n\n| claim | verdict |\n| --- | --- |\n{rows}\n"
    )
    return verdicts


@hydra.main(config_path="pkg://offramp.conf", config_name="papers", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp papers`."""
    run(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
