"""The log: what libraries and connectors have to say, on stderr, without passwords."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from restructure.cli.render import Output

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


def configure(verbosity: int, output: Output) -> None:
    """Send the log to stderr: warnings, with -v more, with -vv everything."""
    root = logging.getLogger()
    root.handlers[:] = [_Handler(output)]
    root.setLevel(_LEVELS[min(verbosity, len(_LEVELS) - 1)])


def _formatter(output: Output) -> logging.Formatter:
    # it takes a sixth of the start of a command, which seldom logs anything
    import structlog  # noqa: PLC0415

    def hide(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        return {
            key: output.hide(value) if isinstance(value, str) else value
            for key, value in event.items()
        }

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            hide,
            structlog.dev.ConsoleRenderer(colors=output.animated),
        ],
    )


class _Handler(logging.Handler):
    """Writes through the console that draws the progress bar, so that both stay whole."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        if self.formatter is None:
            self.formatter = _formatter(self._output)
        self._output.note(self.format(record))
