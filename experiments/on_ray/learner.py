"""The learner on Ray: a named, detached actor around the one engine that writes the store."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.actor import ActorHandle

from offramp.bandits import ContractError, Observation, Policy
from offramp.bandits.durable import DurableEngine, StoreError, signing_key

NAMESPACE = "offramp"
REFUSED = "refused"
LOCKED_FOR = 30.0  # seconds that a restarted learner waits for the one before it to be gone


class Board(NamedTuple):
    """What deciders decide on, as bytes, and the digest that tells one from another."""

    content: bytes
    digest: str


class Reply(NamedTuple):
    """What became of each piece of feedback (an `Outcome`, or "refused: why"), and a newer board if there is one."""

    outcomes: list[str]
    board: Board | None


class Learner:
    """What runs inside the actor; `start_learner` makes one.

    All it knows is in the store: Ray runs this constructor again when the process has died, and it goes on from there.
    """

    def __init__(self, path: str, policy: Policy | None, options: Mapping[str, Any], publish_every: float) -> None:
        self._key = signing_key(path)
        self._engine = _opened(path, policy, {**options, "key": self._key})
        self._file = Path(f"{path}.board")
        self._every = publish_every
        self._publish()

    def hello(self) -> tuple[Board, bytes]:
        """The newest board, and the key that tickets are signed with, for a decider that starts."""
        return self._board, self._key

    def exchange(self, feedback: Sequence[tuple[str, Observation]], seen: str) -> Reply:
        """Apply feedback, durably and each ticket once, and answer with the board if it is not the one seen last."""
        outcomes = self._learn(feedback) if feedback else []
        if self._engine.cursor != self._cursor and time.monotonic() - self._published >= self._every:
            self._publish()
        return Reply(outcomes, None if seen == self._board.digest else self._board)

    def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call a public method of the engine (state, verify, shadow, score, take_over, ...), or read an attribute.

        Raises
        ------
        ValueError
            The name is not public.

        """
        if method.startswith("_"):
            raise ValueError(f"method is {method!r}, allowed are the public ones of DurableEngine")
        found = getattr(self._engine, method)
        result = found(*arguments, **named) if callable(found) else found
        self._publish()
        return result

    def close(self) -> None:
        """Let go of the store; the actor is of no use afterwards."""
        self._engine.close()

    def _learn(self, feedback: Sequence[tuple[str, Observation]]) -> list[str]:
        try:
            return [str(outcome) for outcome in self._engine.update_many(feedback)]
        except ContractError:
            return [self._learn_one(token, observation) for token, observation in feedback]

    def _learn_one(self, token: str, observation: Observation) -> str:
        """One piece alone, where a batch had something wrong in it that must not hold up the rest."""
        try:
            return str(self._engine.update(token, observation))
        except ContractError as error:
            return f"{REFUSED}: {error}"

    def _publish(self) -> None:
        self._engine.publish()
        content = self._file.read_bytes()
        self._board = Board(content, sha256(content).hexdigest())
        self._cursor, self._published = self._engine.cursor, time.monotonic()


def start_learner(
    name: str = "offramp",
    *,
    path: str | Path,
    policy: Policy | None = None,
    publish_every: float = 0.01,
    namespace: str = NAMESPACE,
    actor: Mapping[str, Any] | None = None,
    **options: Any,
) -> ActorHandle:
    """Start the learner of this name, or find it where it runs; returns when it can be asked.

    Parameters
    ----------
    name, namespace
        Under which deciders find it.  There is one of a name in a cluster, whoever starts it and how often.
    path
        The store, on the node of the learner; made where it is missing.  One learner at a time can have it open.
    policy
        For a store that is made; an existing one knows it.
    publish_every
        Shortest time between two boards, seconds.
    actor
        Options of the actor, as `ray.actor.ActorClass.options` takes them.  In a cluster of several nodes pin it to the
        node that has the store: `{"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}`.
    options
        Further options of `offramp.bandits.durable.DurableEngine`: arms, features, seed, synchronous, lateness, ...

    Raises
    ------
    ray.exceptions.RayActorError
        The store could not be opened; the message says why.

    Notes
    -----
    The actor is detached, so it outlives the job that started it, and is restarted however often it dies
    (`max_restarts=-1`): its constructor reads the store again, and takes policy and table of arms from there, since
    they may have changed by then.  Calls that were under way are made again (`max_task_retries=-1`).  That is safe
    because feedback is applied once: the log takes each ticket once, by maker and number, so what was applied
    before the process died is a duplicate the second time.

    """
    remote = ray.remote(Learner).options(
        name=name,
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=-1,
        **(actor or {}),
    )
    handle = remote.remote(str(Path(path).absolute()), policy, options, publish_every)
    ray.get(handle.hello.remote())
    return handle


def stop_learner(name: str = "offramp", *, namespace: str = NAMESPACE) -> None:
    """End the learner of this name for good; the store stays, and the next learner goes on from it.

    Raises
    ------
    ValueError
        There is no learner of this name.

    """
    handle = ray.get_actor(name, namespace=namespace)
    ray.get(handle.close.remote())
    ray.kill(handle, no_restart=True)
    with contextlib.suppress(ValueError):
        while ray.get_actor(name, namespace=namespace):  # the name is free a moment later
            time.sleep(0.01)


def _opened(path: str, policy: Policy | None, options: dict[str, Any]) -> DurableEngine:
    """The engine; after a restart as the store has it, once the learner that died has let go of it."""
    if not ray.get_runtime_context().was_current_actor_reconstructed:
        return DurableEngine(path, policy, **options)
    for made_with in ("arms", "features", "seed"):
        options.pop(made_with, None)
    until = time.monotonic() + LOCKED_FOR
    while True:
        try:
            return DurableEngine(path, **options)
        except StoreError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.05)
