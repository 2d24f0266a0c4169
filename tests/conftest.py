"""Hypothesis judges nothing by the clock: machines differ, and so does what else runs on them."""

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
