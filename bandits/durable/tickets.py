"""Tickets: decisions that describe themselves and are signed, so that whoever takes the feedback needs no table."""

import base64
import binascii
import contextlib
import hmac
import os
import secrets
import struct
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np

from offramp.bandits.contract import ContractError, Decision
from offramp.bandits.rows import FloatArray

VERSION = 1
HEAD = struct.Struct("<BQQQIHHH")  # version, epoch, number, cursor, generation; lengths of stream, row, shadow
SEAL = 16  # bytes of the signature: 128 bits
LONGEST = 65_536  # characters of a token that are looked at
KEY, IDENTITY = 32, 16  # bytes of the secret, and of what tells one store from another
ENVIRONMENT = "OFFRAMP_SIGNING_KEY"


class TicketError(ContractError):
    """A token that was not made with this key, or that is damaged."""


class Ticket(Decision):
    """A decision that knows who made it, when in the log, and by which table; its `token` is all of that, signed.

    Parameters
    ----------
    row, id, stream
        As `offramp.bandits.Decision`; the id is the maker's running number.
    epoch
        Who made it: a number drawn when a decider starts.  With the id it is unique.
    cursor
        Pieces of feedback that had been learnt when it was made.
    generation
        Which policy and table of arms it was made with: a number drawn whenever they change.
    shadow
        The decision row of a candidate that only watched, or None.
    sign
        What makes the token.

    """

    __slots__ = ("_sign", "cursor", "epoch", "generation", "shadow")

    def __init__(
        self,
        row: FloatArray,
        id: int,
        stream: str,
        *,
        epoch: int,
        cursor: int,
        generation: int,
        shadow: FloatArray | None,
        sign: "Callable[[Ticket], str]",
    ) -> None:
        self.row = row
        self.id = id
        self.stream = stream
        self.epoch = epoch
        self.cursor = cursor
        self.generation = generation
        self.shadow = shadow
        self._sign = sign

    @property
    def token(self) -> str:
        """The whole decision, signed: URL-safe base64."""
        return self._sign(self)


class Signer:
    """Writes and reads tokens with one secret.

    Parameters
    ----------
    key
        The secret, 32 bytes.
    identity
        Whose tickets they are, 16 bytes: those of another store are refused although they were made with this key.

    Raises
    ------
    ValueError
        Key or identity have another length.

    Examples
    --------
    >>> import numpy as np
    >>> signer = Signer(bytes(32), bytes(16))
    >>> row = np.array([1.0, 0.5, 0, 0, 1, 0, 1, 0, 0, 0.0, 0.3, 0.2, 0.0, -np.inf])
    >>> ticket = Ticket(row, 7, "default", epoch=1, cursor=0, generation=0, shadow=None, sign=signer.token)
    >>> signer.read(ticket.token).id
    7

    """

    __slots__ = ("_identity", "_key")

    def __init__(self, key: bytes, identity: bytes) -> None:
        for name, given, length in (("the signing key", key, KEY), ("the store's identity", identity, IDENTITY)):
            if not isinstance(given, bytes) or len(given) != length:
                raise ValueError(f"{name} is of {len(given)} bytes, allowed are {length}")
        self._key, self._identity = key, identity

    def __repr__(self) -> str:
        return "Signer(key=...)"

    def token(self, ticket: Ticket) -> str:
        """The signed text of a ticket."""
        name, row = ticket.stream.encode(), ticket.row.tobytes()
        shadow = b"" if ticket.shadow is None else ticket.shadow.tobytes()
        head = HEAD.pack(
            VERSION,
            ticket.epoch,
            ticket.id,
            ticket.cursor,
            ticket.generation,
            len(name),
            len(row) // 8,
            len(shadow) // 8,
        )
        body = b"".join((head, name, row, shadow))
        return base64.urlsafe_b64encode(body + self._seal(body)).rstrip(b"=").decode()

    def read(self, token: str) -> Ticket:
        """The ticket that a token stands for.

        Raises
        ------
        TicketError
            It is no token, or was not signed with this key.

        """
        if not isinstance(token, str) or len(token) > LONGEST:
            raise TicketError(f"the token is longer than {LONGEST} characters, or no text: it is none of ours")
        try:
            given = token.encode("ascii")
            raw = base64.b64decode(given + b"=" * (-len(given) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error) as error:
            raise TicketError("the token is no URL-safe base64, allowed is one that a decision came with") from error
        if base64.urlsafe_b64encode(raw).rstrip(b"=") != given:  # one ticket has one text
            raise TicketError("the token is no URL-safe base64, allowed is one that a decision came with, unchanged")
        body, seal = raw[:-SEAL], raw[-SEAL:]
        if not hmac.compare_digest(self._seal(body), seal):
            raise TicketError("the token's signature is wrong, allowed is a token of this store, unchanged")
        version, epoch, number, cursor, generation, name, row, shadow = HEAD.unpack_from(body)
        if version != VERSION:
            raise TicketError(f"the token's version is {version}, allowed is {VERSION}")
        at = HEAD.size + name
        numbers = np.frombuffer(body, dtype=np.float64, offset=at)
        return Ticket(
            numbers[:row].copy(),
            number,
            body[HEAD.size : at].decode(),
            epoch=epoch,
            cursor=cursor,
            generation=generation,
            shadow=numbers[row:].copy() if shadow else None,
            sign=self.token,
        )

    def _seal(self, body: bytes) -> bytes:
        return blake2b(body, digest_size=SEAL, key=self._key, salt=self._identity, person=b"offramp-ticket").digest()


def longest_token(numbers: int, name: int) -> int:
    """Characters of a token for two rows of so many numbers, and a stream whose name has so many bytes."""
    return -(-4 * (HEAD.size + name + 16 * numbers + SEAL) // 3)


def signing_key(path: str | Path) -> bytes:
    """The secret of a store.

    From the environment variable OFFRAMP_SIGNING_KEY (64 hexadecimal digits), else from the file `<path>.key`, which is
    made, readable by its owner alone, where it is missing.

    Raises
    ------
    ValueError
        The variable or the file holds something else.

    """
    given = os.environ.get(ENVIRONMENT)
    where, file = f"the environment variable {ENVIRONMENT}", Path(f"{os.path.realpath(path)}.key")
    if given is None:
        where = f"file {file}"
        if not file.exists():
            fresh = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
                made.write(secrets.token_hex(KEY))
            try:
                with contextlib.suppress(FileExistsError):
                    os.link(fresh, file)  # of several processes that start at once, one makes the key for all
            finally:
                fresh.unlink()
        given = file.read_text()
    try:
        key = bytes.fromhex(given.strip())
    except ValueError as error:
        raise ValueError(f"{where} holds no key, allowed are {2 * KEY} hexadecimal digits") from error
    if len(key) != KEY:
        raise ValueError(f"{where} holds a key of {len(key)} bytes, allowed are {KEY}")
    return key
