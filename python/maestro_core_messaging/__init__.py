"""Event streaming with one contract for every message broker.

Publish and handle events; retries, dead letters, order for each key, deduplication, back-pressure and metrics are the library's work.
The broker is a URL.
"""

from ._broker import (
    BrokerStatus,
    Capabilities,
    DeadLetter,
    DeadLetters,
    FlushFailure,
    FlushReport,
    GroupInfo,
    MessageBroker,
    PartitionInfo,
    PartitionLag,
    ReplayReport,
    Subscription,
    TopicInfo,
    Transaction,
)
from ._codec import JsonSerializer, Serializer
from ._config import BrokerType, MessagingConfig
from ._consumer import ConsumerCounts, EventConsumer, MemoryDeduplicationStore, MessageHandler
from ._core import Event, Message, Position, Receipt
from ._errors import (
    AlreadyExistsError,
    AlreadyStartedError,
    AuthenticationFailedError,
    BrokerError,
    CannotListenError,
    CircuitOpenError,
    ClosedError,
    ConnectionFailedError,
    InvalidArgumentError,
    InvalidEventError,
    InvalidOptionError,
    InvalidTopicError,
    MessageTooLargeError,
    MessagingError,
    NotOwnedError,
    NotRoutedError,
    OutcomeUnknownError,
    QueueFullError,
    Rejected,
    TimedOutError,
    TlsFailedError,
    TopicNotFoundError,
    TransactionAbortedError,
    UndecodableError,
    UnknownOptionError,
    UnsupportedError,
    reject,
)
from ._publisher import EventPublisher

for _native in (Event, MemoryDeduplicationStore, Message, Position, Receipt):
    _native.__module__ = __name__

__version__ = "0.1.0"

__all__ = [
    "AlreadyExistsError",
    "AlreadyStartedError",
    "AuthenticationFailedError",
    "BrokerError",
    "BrokerStatus",
    "BrokerType",
    "CannotListenError",
    "Capabilities",
    "CircuitOpenError",
    "ClosedError",
    "ConnectionFailedError",
    "ConsumerCounts",
    "DeadLetter",
    "DeadLetters",
    "Event",
    "EventConsumer",
    "EventPublisher",
    "FlushFailure",
    "FlushReport",
    "GroupInfo",
    "InvalidArgumentError",
    "InvalidEventError",
    "InvalidOptionError",
    "InvalidTopicError",
    "JsonSerializer",
    "MemoryDeduplicationStore",
    "Message",
    "MessageBroker",
    "MessageHandler",
    "MessageTooLargeError",
    "MessagingConfig",
    "MessagingError",
    "NotOwnedError",
    "NotRoutedError",
    "OutcomeUnknownError",
    "PartitionInfo",
    "PartitionLag",
    "Position",
    "QueueFullError",
    "Receipt",
    "Rejected",
    "ReplayReport",
    "Serializer",
    "Subscription",
    "TimedOutError",
    "TlsFailedError",
    "TopicInfo",
    "TopicNotFoundError",
    "Transaction",
    "TransactionAbortedError",
    "UndecodableError",
    "UnknownOptionError",
    "UnsupportedError",
    "reject",
]
