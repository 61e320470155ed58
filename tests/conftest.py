"""What every test may ask for: see the fix_*.py modules, one family of fixtures each."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = ("tests.fix_server", "tests.fix_proxy")

# How long one example takes tells how busy the machine is and nothing about the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
