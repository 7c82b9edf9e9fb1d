"""A digest of the code that decides what a study yields: what was played by other code is played again."""

import hashlib
from pathlib import Path

import offramp.bandits
import offramp.environments

BANDITS, ENVIRONMENTS = (Path(str(package.__file__)).parent for package in (offramp.bandits, offramp.environments))
# Without `bandits/durable` and `environments/live`: stores and devices decide nothing that is simulated.
PLAYED = (BANDITS, ENVIRONMENTS, ENVIRONMENTS / "published", ENVIRONMENTS / "timed")


def digest(study: Path, *own: str) -> str:
    """Digest of policies, worlds, and these files of the study's folder, by name without `.py`."""
    made = hashlib.sha256()
    for path in [p for folder in PLAYED for p in sorted(folder.glob("*.py"))] + [study / f"{name}.py" for name in own]:
        made.update(path.read_bytes())
    return made.hexdigest()[:16]
