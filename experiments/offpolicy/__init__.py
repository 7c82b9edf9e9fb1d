"""`offramp offpolicy`: what other rules would have earned, by an engine's log; and a study of whether that holds."""

import json
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from offramp.experiments.earlier import shortened, write
from offramp.experiments.offpolicy.candidates import named, target
from offramp.experiments.offpolicy.evaluation import Evaluation, evaluate
from offramp.experiments.offpolicy.intervals import mean
from offramp.experiments.offpolicy.logs import Log
from offramp.experiments.offpolicy.pictures import draw
from offramp.experiments.offpolicy.printed import spoken
from offramp.experiments.offpolicy.replayed import Replayed, replayed
from offramp.experiments.offpolicy.revelation import Logging
from offramp.experiments.offpolicy.study import LOGGERS, said
from offramp.experiments.offpolicy.study import study as added
from offramp.experiments.offpolicy.tables import fill, told
from offramp.experiments.refusals import in_one_line
from offramp.experiments.sweeps.keys import plain
from offramp.experiments.written import Save, run_study

QUICK = {"logs": 4, "requests": 1_200, "lengths": [600], "length_logs": 4, "threads": 1}
LEAST = {"logs": 2, "requests": 100, "length_logs": 0, "threads": 1}

__all__ = ["LOGGERS", "Evaluation", "Log", "Logging", "Replayed", "check", "evaluate", "main", "replayed", "run"]


def check(cfg: DictConfig) -> DictConfig:
    """The configuration as it is meant; refuses what no run can mean."""
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, QUICK)  # type: ignore[assignment]
    for name, least in LEAST.items():
        if isinstance(cfg[name], bool) or not (isinstance(cfg[name], int) and cfg[name] >= least):
            raise ValueError(f"{name} is {cfg[name]!r}, allowed is a whole number, {least} or more")
    wrong = [n for n in cfg.lengths if not (isinstance(n, int) and 50 <= n < cfg.requests)]
    if wrong:
        raise ValueError(f"lengths holds {wrong[0]!r}, allowed are whole numbers from 50 to less than {cfg.requests}")
    return cfg


def candidates(cfg: DictConfig, log: Log) -> dict[str, Any]:
    """What is to be evaluated, by name: the candidate, or every rule of the store's table."""
    assert log.arms is not None
    if cfg.candidate is None:
        return {named(arm): [(1.0, arm)] for arm in log.arms.table}
    given = cfg.candidate
    return {
        given if isinstance(given, str) else str(plain(OmegaConf.create({"c": given}))["c"]): target(given, log.arms)
    }


def evaluated(cfg: DictConfig, log: Log) -> dict[str, Evaluation | Replayed]:
    """All candidates on a log."""
    logging = Logging(log)
    found: dict[str, Evaluation | Replayed] = {}
    for name, one in candidates(cfg, log).items():
        if isinstance(one, list):
            found[name] = evaluate(one, log, logging=logging, left_out=cfg.left_out, half=cfg.half)
        else:
            found[name] = replayed(one, log, seed=cfg.seed)
    return found


def run_store(cfg: DictConfig, folder: Path) -> Path:
    """Evaluate on a store; writes evaluation.json."""
    log = Log.read(cfg.store, stream=cfg.stream)
    found = evaluated(cfg, log)
    played = mean(log.reward)
    kept = {
        "store": str(cfg.store), "policy": repr(log.policy), "requests": len(log), "lost": log.lost, "why": log.why,
        "played": played.numbers,
        "candidates": {
            name: said(one) if isinstance(one, Evaluation) else {
                "accepted": one.accepted, "refusal": one.refusal,
                "estimate": None if one.estimate is None else one.estimate.numbers,
            }
            for name, one in found.items()
        },
    }  # fmt: skip
    path = folder / "evaluation.json"
    folder.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(plain(shortened(kept)), indent=1) + "\n")
    spoken(log, found, Console(), path)
    return path


def run(cfg: DictConfig, folder: Path) -> Path:
    """Evaluate on a store where one is given; else simulate, and write result.json, figures and README.md."""
    if cfg.store is not None:
        return run_store(cfg, folder)
    cfg = check(cfg)

    def measure(kept: dict[str, Any], save: Save, console: Console) -> str:
        return added(cfg, kept, save, console)

    return run_study(folder, measure, draw=draw, fill=fill, told=told)


@hydra.main(config_path="pkg://offramp.conf", config_name="offpolicy", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp offpolicy`."""
    run(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
