"""``python -m restructure``: the same as the command ``restructure``."""

from __future__ import annotations

from restructure.cli.app import main

if __name__ == "__main__":
    main()
