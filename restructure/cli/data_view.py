"""How far ``check --data`` is, on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator

from restructure.cli.progress import LINE_EVERY, View
from restructure.cli.render import Output
from restructure.phases.data_check import Looking


class DataView(View):
    """``show`` may be called from any one thread."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._line = time.monotonic()

    def show(self, looking: Looking) -> None:
        text = " · ".join(_parts(looking))
        if self._bar is not None:
            self._bar.show("check", text, None if looking.unique else looking.share)
        elif time.monotonic() - self._line >= LINE_EVERY:
            self._line = time.monotonic()
            self._output.note(f"check     {text}")


def _parts(looking: Looking) -> Iterator[str]:
    if looking.unique:
        yield f"{looking.unique}: all rows at once"
    else:
        yield f"{looking.share:.1%}"
    yield f"{looking.rows:,} rows"
    if looking.refusals:
        yield f"{looking.refusals:,} refused"
    if looking.throttled:
        yield f"throttled: {looking.throttled}"
