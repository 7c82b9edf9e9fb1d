"""One Parquet data set in many parts: a run is one file, written whole, and a row of it is one policy with one seed."""

import json
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig

from offramp.environments import blocks
from offramp.experiments.closer import BINS, OFFSETS
from offramp.experiments.playing import several
from offramp.experiments.results import RECOVERED, Played, table
from offramp.experiments.sweeps.contents import contents
from offramp.experiments.sweeps.keys import cache_digest, digest_of, key, names, plain, resolved, source_digest
from offramp.experiments.sweeps.versions import WHAT, newest

FOLDER = "runs"
FINISHED, FAILED, REFUSED = "finished", "failed", "refused"
CURVES = ("regret", "cost", "correct", "agreement", "offloads")  # each a column NAME_sum
LOG = logging.getLogger(__name__)
VERSIONS = ("source", "cache", "files")
TEXTS = ("key", *VERSIONS, "status", "why", "policy", "policy_config", "stream", "stream_config")
MORE_TEXTS = ("world", "world_config", "setting", "facts")
METRICS = (
    "cost", "edge_cost", "offload_cost", "reward", "accuracy", "agreement", "offload_share", "audit_share",
    "regret_total", "realised_regret_total", "static_regret_total", "clairvoyant_gap_total", "bin_rule_gap_total",
    "ceiling_regret_total", "edge_megamacs", "kilobytes_sent", "recovery_rounds", "calibration_error",
    "microseconds_per_round",
)  # fmt: skip
LISTS = (
    *(f"{name}_sum" for name in CURVES), "split_share", "level_share", "recovery",
    "answers", "answers_confidence", "answers_correct",
)  # fmt: skip
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in (*TEXTS, *MORE_TEXTS)),
        ("seed", pa.int64()),
        ("horizon", pa.int64()),
        ("written", pa.float64()),
        ("seconds", pa.float64()),
        ("changes", pa.int64()),
        *((name, pa.float64()) for name in METRICS),
        ("rounds", pa.list_(pa.int64())),
        *((name, pa.list_(pa.float32())) for name in LISTS),
    ]
)
EVEN = 64  # stretches of a run in which the choices are counted
COLUMNS = """
key: digest of configuration, package text, cache, and files that the configuration names.
source, cache, files: digest of the text alone; of the cache and of the files that stream, world and setting name; of
those that the policy names (its own code as well), empty where none.
status, why: finished, refused (the world does not offer what the policy plays) or failed, and the reason.
policy, stream, world and their _config: name and configuration (JSON); setting: what else the run was given.
facts: arms, conditions, links, the best arm under each, and what the stream did with the first seed (JSON).
rounds, NAME_sum: running sums at checkpoints.  split_share, level_share: 64 stretches x splits (thresholds), flat.
recovery: regret a round after a change, between the offsets of `offramp.experiments.closer`.
answers, answers_confidence, answers_correct: by ten bins of confidence, of the answers looked at.
"""


def identity(cfg: DictConfig) -> dict[str, Any]:
    """What all rows of a run have in common."""
    found = resolved(cfg)
    setting = {k: v for k, v in found.items() if k not in ("policy", "stream", "world", "seed", "seeds")}
    return {
        "key": key(cfg),
        "source": source_digest(),
        "stream": names(cfg)["stream"][0],
        "stream_config": json.dumps(found["stream"], sort_keys=True),
        "setting": json.dumps(setting, sort_keys=True),
        "horizon": found["horizon"],
        "written": time.time(),
    }


def named(cfg: DictConfig) -> list[dict[str, str]]:
    """Every policy in every world of a configuration, with what they were given."""
    called = names(cfg)
    cache, rest = cache_digest(cfg.cache), {k: v for k, v in resolved(cfg).items() if k not in ("policy", "world")}
    policies = several(cfg.policy, "_target_", called["policy"][0])
    worlds = several(cfg.world, "prices", called["world"][0])
    return [
        {
            "policy": policy,
            "policy_config": json.dumps(resolved(given), sort_keys=True),
            "world": world,
            "world_config": json.dumps(resolved(where), sort_keys=True),
            "cache": digest_of({**contents([rest, resolved(where)]), "": cache}),
            "files": digest_of(contents(resolved(given))),
        }
        for world, where in worlds.items()
        for policy, given in policies.items()
    ]


def rows(cfg: DictConfig, played: Sequence[Played], seconds: float) -> list[dict[str, Any]]:
    """All rows of a run."""
    common = {**identity(cfg), "seconds": seconds}
    worlds = {p.name: p for p in played}
    found = {p.name: table(p).to_dict("records") if p.traces else [] for p in played}
    of_world = {p.name: facts(p) for p in played}
    made = []
    for who in named(cfg):
        p, policy = worlds[who["world"]], who["policy"]
        if policy in p.refused:
            made.append({**common, **who, "status": REFUSED, "why": p.refused[policy], "facts": of_world[p.name]})
            continue
        of_policy = [row for row in found[p.name] if row["policy"] == policy]
        for s, row in enumerate(of_policy):
            numbers = {name: row.get(name) for name in ("seed", *METRICS)}
            made.append(
                {**common, **who, "status": FINISHED, **numbers, "facts": of_world[p.name], **curves(p, policy, s)}
            )
    return made


def facts(played: Played) -> str:
    """The table of arms, and the best of them under each (condition, link) of the stream."""
    arms = [[arm.cut, arm.threshold, list(arm.early)] for arm in played.arms.table]
    return json.dumps(
        plain(
            {
                "exits": played.arms.exits,
                "arms": arms,
                "conditions": list(played.stream.conditions),
                "links": list(played.stream.links),
                "best": played.best.tolist(),
                "strip": strip(played),
                "offsets": OFFSETS.tolist(),
                "bins": BINS,
                "recovered": RECOVERED,
            }
        ),
        sort_keys=True,
    )


def strip(played: Played, places: int = 800) -> list[list[int]]:
    """What the first seed's stream did, looked at evenly: [round, condition, link] wherever one of the two is new."""
    wanted = np.linspace(0, played.horizon - 1, min(places, played.horizon)).astype(np.int64)
    found: list[list[int]] = []
    start = 0
    for block in blocks(played.stream, samples=1_000, horizon=played.horizon, seed=played.seeds[0]):
        for at in wanted[(wanted >= start) & (wanted < start + len(block.sample))]:
            now = [int(block.condition[at - start]), int(block.price[at - start])]
            if not found or found[-1][1:] != now:
                found.append([int(at), *now])
        start += len(block.sample)
    return found


def curves(played: Played, policy: str, s: int) -> dict[str, Any]:
    """What one run did over its rounds."""
    trace, closer = played.traces[policy][s], played.closer[policy][s]
    sums = {f"{name}_sum": trace.cost if name == "cost" else trace.sums[name] for name in CURVES}
    even = np.unique(np.round(np.linspace(0, played.horizon, EVEN + 1)[1:]).astype(np.int64).clip(1))
    kept = np.searchsorted(trace.rounds, even)
    counts, beyond = (np.diff(x[kept], axis=0, prepend=0.0) for x in (trace.arms, trace.cuts))
    total = counts.sum(axis=1, keepdims=True) + beyond.sum(axis=1, keepdims=True)
    cuts = np.array([arm.cut for arm in played.arms.table])
    levels = np.array([arm.threshold for arm in played.arms.table])
    own = (cuts > 0) & (cuts < played.arms.exits)
    split = np.stack([counts[:, cuts == c].sum(axis=1) for c in range(played.arms.exits + 1)], axis=1) + beyond
    ladder = sorted(set(levels[own]))
    level = np.stack([counts[:, own & (levels == x)].sum(axis=1) for x in ladder], axis=1) if ladder else counts[:, :0]
    return {
        "rounds": trace.rounds,
        **sums,
        "split_share": (split / total).ravel(),
        "level_share": (level / total).ravel(),
        "recovery": closer.recovery,
        "changes": closer.changes,
        "answers": closer.count,
        "answers_confidence": closer.confidence,
        "answers_correct": closer.correct,
    }


def failure(cfg: DictConfig, why: str, seconds: float) -> list[dict[str, Any]]:
    """The rows of a run that failed: one for every policy in every world."""
    common = {**identity(cfg), "seconds": seconds, "status": FAILED, "why": why}
    return [{**common, **who} for who in named(cfg)]


def part(folder: Path, name: str) -> Path:
    """Where the run of this key is kept."""
    return folder / FOLDER / f"{name}.parquet"


def write_part(folder: Path, made: Sequence[Mapping[str, Any]]) -> Path:
    """Write the rows of one run: the file is not there, or it is whole."""
    path = part(folder, made[0]["key"])
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()} for row in made]
    status = {b"status": str(made[0]["status"] if len({r["status"] for r in made}) == 1 else FINISHED).encode()}
    found = pa.Table.from_pylist(listed, SCHEMA).replace_schema_metadata({**status, b"columns": COLUMNS.encode()})
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        pq.write_table(found, partial, compression="zstd", write_page_checksum=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def load(path: Path) -> pa.Table:
    """A part, all of it, its check sums looked at; columns that older parts lack are empty.

    Raises
    ------
    ValueError
        It is damaged, or none of ours.

    """
    try:
        found = pq.read_table(path, page_checksum_verification=True)
        for name in VERSIONS:
            if name not in found.column_names:
                empty = pa.repeat(pa.scalar("", pa.string()), len(found))
                found = found.add_column(SCHEMA.get_field_index(name), name, empty)
        return found.cast(SCHEMA).replace_schema_metadata(found.schema.metadata)
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:
        why = " ".join(str(error).split())  # of a thrift parser it comes in lines
        raise ValueError(f"{path} cannot be read ({why}), allowed is what a run wrote; move it away") from error


def state(path: Path) -> str | None:
    """What a part says of its run; None where there is none, or none that can be read."""
    if not path.exists():
        return None
    try:
        return str((load(path).schema.metadata or {}).get(b"status", b"").decode())
    except ValueError as error:
        LOG.warning("it counts as not there: %s", error)
        return None


def read(folder: Path) -> pd.DataFrame:
    """All rows of a data set; of a run that is there in several versions the newest.

    Returns
    -------
    DataFrame
        `attrs["left_out"]`: how many rows are not in it because they are of older versions, see `versions.newest`.

    Raises
    ------
    ValueError
        There is no data set, or a part is none of ours.

    """
    paths = sorted((folder / FOLDER).glob("[!.]*.parquet"))
    if not paths:
        raise ValueError(f"{folder} holds no runs, allowed is the folder of a sweep or of a comparison")
    everything = pa.concat_tables([load(path) for path in paths]).to_pandas()
    frame = newest(everything)
    done = frame[frame.status != FAILED].drop_duplicates([*WHAT, "seed"], keep="last")
    lost = frame[frame.status == FAILED].merge(done[WHAT].drop_duplicates(), on=WHAT, how="left", indicator=True)
    lost = lost[lost.pop("_merge") == "left_only"].drop_duplicates(WHAT, keep="last")
    both = pd.concat([done, lost], ignore_index=True) if len(lost) else done.reset_index(drop=True)
    both.attrs["left_out"] = len(everything) - len(frame)
    if both.attrs["left_out"]:
        LOG.warning("%s: %d rows of older versions are left out", folder, both.attrs["left_out"])
    return both
