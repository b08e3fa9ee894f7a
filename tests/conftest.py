"""For all rooms: an example that hypothesis makes may take as long as it takes, on a machine however slow."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
