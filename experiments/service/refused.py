"""A request that is answered with what was wrong."""


class Refused(Exception):  # noqa: N818  (not an error of the program)
    """Answer with this status and sentence.

    Parameters
    ----------
    status
        Of HTTP.
    message
        What was wrong, which value, what is allowed.
    field
        Where in the body.
    retry_after
        Seconds after which the same request may succeed.
    reason
        Word for it in the metrics.

    """

    def __init__(
        self, status: int, message: str, *, field: str | None = None, retry_after: int | None = None, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.reason = reason or REASONS.get(status, "other")


REASONS = {
    400: "malformed",
    401: "key",
    404: "not_found",
    405: "method",
    408: "timeout",
    413: "too_large",
    415: "media_type",
    422: "invalid",
    429: "rate",
    431: "headers",
    503: "unavailable",
}
