"""The core's log lines, through the standard `logging` module under `maestro_core_messaging`."""

from __future__ import annotations

import logging

from . import _core

logger = logging.getLogger("maestro_core_messaging")
_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
_OFF = 4


def pass_on() -> None:
    for level, text, fields in _core.take_logs():
        # Not every line has a place of its own in the record: `messaging` has all of them, and the text those that matter.
        shown = " ".join(f"{name}={value}" for name, value in fields.items())
        logger.log(_LEVELS[level], "%s%s", text, f" ({shown})" if shown else "", extra={"event": text, "messaging": fields})


_followed = -1


def follow_level() -> None:
    """Lines that `logging` would drop are not even put together."""
    global _followed
    level = logger.getEffectiveLevel()
    if level != _followed:
        _followed = level
        _core.set_log_level(next((i for i, each in enumerate(_LEVELS[:_OFF]) if level <= each), _OFF))


_core.collect_logs_to(pass_on)
