"""Random attacks on the durable engine: forged tokens, impossible feedback, mutilated files.

`python tests/bandits/test_durable_fuzz.py 100000` tries as many, the tests OFFRAMP_FUZZ_CASES (3,000).  Each
attack returns how many cases it tried, and asserts that what is refused changes nothing.
"""

import base64
import json
import math
import os
import random
import struct
import sys
import tempfile
from pathlib import Path

import pytest

from offramp.bandits import (
    UCB1,
    Arms,
    ChainUCB,
    ConformalFloor,
    ContractError,
    LinUCB,
    Observation,
    PageHinkley,
    Quote,
    Restarting,
    sealed,
)
from offramp.bandits.durable import (
    DurableEngine,
    Outcome,
    StoreError,
    TicketError,
    arms_from_json,
    arms_to_json,
    policy_from_json,
    policy_to_json,
)
from offramp.bandits.durable.fold import SCHEMA
from offramp.bandits.durable.tickets import Signer
from offramp.bandits.sealed import SealedError

NAN, INF = float("nan"), float("inf")
CASES = int(os.environ.get("OFFRAMP_FUZZ_CASES", "3000"))
KEY, ANOTHER = bytes(range(32)), bytes(range(1, 33))
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
TABLE = Arms.grid(exits=3, thresholds=(0.5, 0.8, INF), raw_input_allowed=True).joined(
    Arms.cascades(exits=3, at=(1, 2), thresholds=(0.5, INF), cut=3)
)
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)


def engine_in(folder, policy=None, **options):
    return DurableEngine(Path(folder) / "store", policy or UCB1(), arms=TABLE, key=KEY, **options)


def knows(engine):
    """All that a refused request must leave alone."""
    return engine.cursor, [(name, engine.state(name).tobytes()) for name in engine.streams], len(list(engine.log()))


def spoilt(rng, raw):
    """Bytes with something wrong in them."""
    made = bytearray(raw)
    kind = rng.randrange(7)
    if kind == 0:
        at = rng.randrange(len(made))
        made[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del made[rng.randrange(len(made)) :]
    elif kind == 2:
        made += rng.randbytes(rng.randrange(1, 40))
    elif kind == 3:
        at = rng.randrange(len(made))
        made[at : at + rng.randrange(1, 30)] = rng.randbytes(rng.randrange(0, 30))
    elif kind == 4:
        made = bytearray(rng.randbytes(rng.randrange(0, 600)))
    elif kind == 5:
        first, second = sorted((rng.randrange(len(made)), rng.randrange(len(made))))
        made = made[:first] + made[second:] + made[first:second]
    else:
        at = rng.randrange(0, len(made), 8)
        value = rng.choice((0.0, -1.0, 1e308, NAN, INF, 5e-324, 2.0**53))
        made[at : at + 8] = struct.pack("<d", value)
    return bytes(made)


def tokens(rng, n):
    """None but an unchanged token is read, and a forged one changes nothing."""
    observation = Observation(confidence=[NAN, NAN, 0.5], answered_at=3, offloaded=True)
    with tempfile.TemporaryDirectory() as folder, engine_in(folder, streams=("default", "other")) as engine:
        tickets = [engine.decide(QUOTE, stream=rng.choice(engine.streams)) for _ in range(50)]
        given = [t.token for t in tickets]
        real, identity = set(given), engine._signer._identity
        strangers = Signer(ANOTHER, identity), Signer(KEY, identity[::-1])  # another key; another store
        before = knows(engine)
        for i in range(n):
            token = rng.choice(given)
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            kind = rng.randrange(9)
            if kind == 0:
                at = rng.randrange(len(token))
                forged = token[:at] + rng.choice(LETTERS) + token[at + 1 :]
            elif kind == 1:
                forged = token[: rng.randrange(len(token))]
            elif kind == 2:
                forged = token + rng.choice(("=", "==", "A", "AAAA", "\n", " ", "\0", "\u00e9", token))
            elif kind == 3:
                forged = rng.choice(strangers).token(rng.choice(tickets))
            elif kind == 4:
                other = base64.urlsafe_b64decode((t := rng.choice(given)) + "=" * (-len(t) % 4))
                forged = text(raw[:-16] + other[-16:])
            elif kind == 5:
                forged = token.replace("-", "+").replace("_", "/")
            elif kind == 6:
                forged = text(rng.randbytes(rng.randrange(0, 400)))
            else:
                forged = text(spoilt(rng, raw))
            if forged in real:
                continue
            try:
                if i % 20:
                    engine.read(forged)
                else:
                    engine.update_many([(tickets[0], observation), (forged, observation)])
                raise AssertionError(f"accepted: {forged!r}")
            except TicketError:
                pass
        assert knows(engine) == before
    return n


def text(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def allowed(decision, told):
    """May this decision lead to this?  Said once more, in other words than `rows.check_observation`."""
    confidence, at, offloaded, audited = told["confidence"], told["answered_at"], told["offloaded"], told["audited"]
    classes = told["prediction"] or [-1] * len(confidence)
    exits, cut, asked = decision.exits, decision.cut, decision.thresholds
    if len(confidence) != exits or any(not 0.0 <= c <= 1.0 for c in confidence if not math.isnan(c)):
        return False
    if any(not math.isfinite(k) or k < -1 or k != int(k) for k in classes):
        return False
    if any(told[cost] < 0.0 for cost in ("edge_cost", "offload_cost")):
        return False
    if at not in range(1, exits + 1) or offloaded not in (0, 1) or audited not in (0, 1):
        return False
    sure = [j for j in range(1, cut + 1) if confidence[j - 1] >= asked[j - 1]]
    if offloaded:
        fits = not sure and cut < exits and not audited
        last, least = confidence[-1], asked[cut - 1] if cut else INF
        doubted = at <= cut and last < least < INF and last < confidence[at - 1]
        return fits and (at == exits or doubted)
    if not sure or sure[0] != at or (audited and not (decision.audit and cut < exits)):
        return False
    beyond = range(at, exits)
    return bool(audited) or all(math.isnan(confidence[j]) and classes[j] == -1 for j in beyond)


def told_at_random(rng):
    """Something that somebody might say of a decision."""
    values = (NAN, NAN, NAN, 0.0, 0.3, 0.5, 0.79, 0.8, 0.95, 1.0)
    wrong = (-0.1, 1.01, INF, -INF, 1e300, -5e-324)
    confidence = [rng.choice(wrong) if rng.random() < 0.02 else rng.choice(values) for _ in range(3)]
    if rng.random() < 0.02:
        confidence = confidence[: rng.randrange(3)] or [0.5] * rng.randrange(4, 8)
    if rng.random() < 0.5:  # as it might have been
        confidence = [NAN] * 3
        confidence[rng.randrange(3)] = rng.choice(values)
        confidence[rng.randrange(3)] = rng.choice(values)
    prediction = None
    if rng.random() < 0.2:
        prediction = [rng.choice((-1, -1, 0, 7, 2.0**40, -2, 0.5, NAN, INF)) for _ in confidence]
    odd = rng.random() < 0.05
    return {
        "confidence": confidence,
        "answered_at": rng.choice((0, -1, 4, 1.5, NAN, 1e300, 2**62)) if odd else rng.choice((1, 2, 3, 3)),
        "offloaded": rng.choice((2, -1, 0.5, NAN)) if rng.random() < 0.02 else rng.random() < 0.5,
        "audited": rng.choice((2, NAN)) if rng.random() < 0.02 else rng.random() < 0.05,
        "prediction": prediction,
        "edge_cost": rng.choice((NAN, NAN, NAN, 0.0, 0.2, -0.1)),
        "offload_cost": rng.choice((NAN, NAN, NAN, 0.0, 0.2, -1e-300)),
    }


def observations(rng, n):
    """What a decision cannot have led to is refused and changes nothing; what it can is counted, once."""
    policy = ConformalFloor(policy=UCB1(), audit=0.5)
    counted = refused = 0
    with tempfile.TemporaryDirectory() as folder, engine_in(folder, policy, synchronous="OFF") as engine:
        open_to = [engine.decide(QUOTE).token for _ in range(100)]
        while counted + refused < n:
            at = rng.randrange(len(open_to))
            ticket, told = engine.read(open_to[at]), told_at_random(rng)
            before, cursor = engine.state(), engine.cursor
            try:
                outcome = engine.update(open_to[at], Observation(**told))
            except ContractError:
                assert not allowed(ticket, told), (ticket, told)
                assert engine.state().tobytes() == before.tobytes()
                assert engine.cursor == cursor
                refused += 1
            else:
                assert allowed(ticket, told), (ticket, told)
                assert outcome is Outcome.COUNTED
                assert engine.cursor == cursor + 1
                counted += 1
                open_to[at] = engine.decide(QUOTE).token
        engine.verify()
    assert min(counted, refused) > n // 20
    return n


def snapshots(rng, n):
    """A mutilated snapshot is a SealedError and leaves nothing behind, or it is the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with engine_in(folder, streams=("default", "other")) as engine:
            ticket = engine.decide(QUOTE)
            engine.update(ticket, played(ticket))
            engine.shadow(ChainUCB(), share=0.5)
            engine.export(path / "snapshot")
            raw, state = (path / "snapshot").read_bytes(), engine.state().tobytes()
        tensors, manifest = sealed.load(path / "snapshot", SCHEMA)
        for _ in range(n):
            damaged = rng.random() < 0.7
            if damaged:
                (path / "bad").write_bytes(spoilt(rng, raw))
            else:  # sealed again: the hash is right, what it says is not
                said = json.loads(json.dumps(manifest))
                field = rng.choice(sorted(said))
                said[field] = rng.choice(
                    (None, [], {}, "x", -1, 1e400, 2**70, [[]], {"a": 1}, "[" * 5000, [None], True)
                )
                if rng.random() < 0.3:
                    del said[field]
                sealed.write(path / "bad", tensors, said, SCHEMA)
            try:
                with DurableEngine.imported(path / "new", path / "bad", key=KEY) as again:
                    assert not damaged or again.state().tobytes() == state
                    again.decide(QUOTE)
            except (SealedError, StoreError):
                assert not (path / "new").exists()
            for left in path.glob("new*"):
                left.unlink()
    return n


def played(ticket, sure=0.9):
    """An observation that the decision can have led to."""
    confidence = [NAN] * ticket.exits
    for j, least in enumerate(ticket.thresholds[: ticket.cut]):
        confidence[j] = 1.0 if ticket.cut == j + 1 == ticket.exits else sure
        if confidence[j] >= least:
            return Observation(confidence=confidence, answered_at=j + 1, offloaded=False)
    confidence[-1] = 0.7
    return Observation(confidence=confidence, answered_at=ticket.exits, offloaded=True)


def stores(rng, n):
    """A mutilated store is a StoreError or SealedError; one that opens is what it was, or does not verify."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with engine_in(folder) as engine:
            for _ in range(290):
                ticket = engine.decide(QUOTE)
                engine.update(ticket, played(ticket, rng.random()))
            engine.publish()
            whole = {name: Path(f"{path / 'store'}{name}").read_bytes() for name in ("", "-wal")}
        whole_closed = (path / "store").read_bytes()
        for _ in range(n):
            for left in path.glob("bad*"):
                left.unlink()
            kind = rng.choice(("", "-wal", "closed"))
            for name, raw in whole.items():
                Path(f"{path / 'bad'}{name}").write_bytes(spoilt(rng, raw) if kind == name else raw)
            if kind == "closed":
                (path / "bad-wal").unlink()
                (path / "bad").write_bytes(spoilt(rng, whole_closed))
            try:
                with DurableEngine(path / "bad", UCB1(), arms=TABLE, key=KEY) as engine:
                    engine.verify()
                    assert engine.cursor <= 290
                    ticket = engine.decide(QUOTE)
                    assert engine.update(ticket, played(ticket)) is Outcome.COUNTED
            except (StoreError, SealedError):
                pass
    return n


def specs(rng, n):
    """Text that is no policy, or no table of arms, is a ValueError; what is one can be written and read again."""
    policies = (
        UCB1(beta=0.5),
        LinUCB(),
        ChainUCB(),
        ConformalFloor(policy=UCB1()),
        Restarting(policy=UCB1(), detector=PageHinkley()),
    )
    texts = [policy_to_json(p) for p in policies] + [arms_to_json(TABLE)]
    words = ['"class"', "null", "1e999", "-1", '"UCB1"', *"[]{}", '"Arm"', "9" * 5000, '{"number": "nan"}', "[" * 3000]
    for _ in range(n):
        said = rng.choice(texts)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(said))
            said = said[:at] + rng.choice((*words, chr(rng.randrange(32, 127)))) + said[at + rng.randrange(0, 12) :]
        for read, write in ((policy_from_json, policy_to_json), (arms_from_json, arms_to_json)):
            try:
                made = read(said)
            except ValueError:
                continue
            assert write(read(write(made))) == write(made)
    return n


SHARES = {tokens: 0.5, observations: 0.29, specs: 0.15, snapshots: 0.05, stores: 0.01}


@pytest.mark.parametrize("attack", SHARES, ids=lambda attack: attack.__name__)
def test_what_is_refused_changes_nothing(attack):
    cases = max(int(CASES * SHARES[attack]), 20)
    assert attack(random.Random(cases), cases) == cases


if __name__ == "__main__":
    total = int(sys.argv[1]) if len(sys.argv) > 1 else CASES
    for seed, (attack, share) in enumerate(SHARES.items()):
        cases = attack(random.Random(seed), max(round(total * share), 1))
        sys.stdout.write(f"{attack.__name__}: {cases} cases\n")
