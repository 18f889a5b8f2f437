"""Every way in which the library says no."""

from __future__ import annotations

from typing import NoReturn

from . import _core


class MessagingError(Exception):
    """What the library raises. The text says what was wrong, with which value, and what is allowed; it never holds a password."""

    #: The kind of error, the same word as in C++, in metrics and in the command's output.
    reason: str = "broker_error"

    def __init__(self, detail: str = "", *, text: str | None = None, retriable: bool = False) -> None:
        super().__init__(text if text is not None else detail)
        #: What was wrong, without the sentence that explains the kind of error.
        self.detail: str = detail
        #: Whether trying again later can help.
        self.retriable: bool = retriable

    @property
    def outcome_unknown(self) -> bool:
        """True when the broker may have done what was asked, although it never said so."""
        return self.reason == "outcome_unknown"


class InvalidArgumentError(MessagingError, ValueError, TypeError):
    """A parameter that no broker would accept."""

    reason = "invalid_argument"


class InvalidTopicError(MessagingError, ValueError, TypeError):
    """A name that is no topic, or that this broker cannot carry."""

    reason = "invalid_topic"


class UnknownOptionError(MessagingError, ValueError):
    """A configuration key that is not in the options table; the text names the nearest one."""

    reason = "unknown_option"


class InvalidOptionError(MessagingError, ValueError, TypeError):
    """A configuration value of the wrong type or out of range."""

    reason = "invalid_option"


class UnsupportedError(MessagingError, RuntimeError):
    """A promise that this broker cannot keep, refused at start; or a use from another event loop or a forked process."""

    reason = "unsupported"


class MessageTooLargeError(MessagingError, ValueError):
    """Over the broker's or the configured limit; surely not sent."""

    reason = "message_too_large"


class ConnectionFailedError(MessagingError, ConnectionError):
    """The broker could not be reached or the connection broke; surely not done."""

    reason = "connection_failed"


class AuthenticationFailedError(MessagingError):
    """The broker refused the credentials."""

    reason = "authentication_failed"


class TlsFailedError(MessagingError):
    """The certificate could not be verified."""

    reason = "tls_failed"


class TimedOutError(MessagingError, TimeoutError):
    """The time allowed ran out; surely not done."""

    reason = "timed_out"


class OutcomeUnknownError(MessagingError):
    """The broker may or may not have it: nobody can tell."""

    reason = "outcome_unknown"


class QueueFullError(MessagingError):
    """A bounded queue stayed full until the deadline; surely not done."""

    reason = "queue_full"


class CircuitOpenError(MessagingError):
    """The circuit breaker is open; nothing was sent. The text says until when."""

    reason = "circuit_open"


class NotRoutedError(MessagingError):
    """Nobody was there to get the message: no queue, or no subscriber."""

    reason = "not_routed"


class UndecodableError(MessagingError, ValueError):
    """The payload is not what its format says. Raised by a handler, it dead-letters the message without retries."""

    reason = "undecodable"


class InvalidEventError(MessagingError, ValueError, TypeError):
    """Data that does not fit the event's type or its format. Raised by a handler, it dead-letters the message without retries."""

    reason = "invalid_event"


class Rejected(MessagingError):
    """Raised by a handler to dead-letter the message without retries."""

    reason = "rejected"


class ClosedError(MessagingError, RuntimeError):
    """The object was closed or disconnected."""

    reason = "closed"


class AlreadyStartedError(MessagingError, RuntimeError):
    """`start()` while it is running, or `subscribe()` after it."""

    reason = "already_started"


class TopicNotFoundError(MessagingError, LookupError):
    """The topic does not exist and may not be created."""

    reason = "topic_not_found"


class AlreadyExistsError(MessagingError):
    """What was to be created is there already."""

    reason = "already_exists"


class TransactionAbortedError(MessagingError):
    """Nothing of the transaction took effect."""

    reason = "transaction_aborted"


class NotOwnedError(MessagingError):
    """The delivery is no longer this member's to settle."""

    reason = "not_owned"


class BrokerError(MessagingError):
    """The broker's own verdict; its text travels along."""

    reason = "broker_error"


class CannotListenError(MessagingError, OSError):
    """The monitoring endpoint's address or port is not to be had."""

    reason = "cannot_listen"


for _each in (MessagingError, *MessagingError.__subclasses__()):
    _each.__module__ = "maestro_core_messaging"  # where users import it from; dead letters name it so

_BY_REASON: dict[str, type[MessagingError]] = {each.reason: each for each in MessagingError.__subclasses__()}


def make(reason: str, detail: str, text: str, retriable: bool) -> MessagingError:
    return _BY_REASON[reason](detail, text=text, retriable=retriable)


def reject(reason: str) -> NoReturn:
    """Dead-letters the message that is being handled, without retries."""
    raise Rejected(reason)


assert set(_BY_REASON) == set(_core.error_names())
