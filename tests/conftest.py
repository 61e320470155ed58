"""What every test may ask for: see the fix_*.py modules, one family of fixtures each."""

from __future__ import annotations

pytest_plugins = ("tests.fix_server", "tests.fix_proxy")
