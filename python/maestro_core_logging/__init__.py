"""Structured logging, on structlog: `logger.info("saved", order_id=7)`, and `with logger.bind(order_id=7):` for all that is logged inside."""

from ._logger import Logger, get_logger

__all__ = ["Logger", "get_logger"]
