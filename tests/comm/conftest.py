"""Hypothesis for this folder: on a busy machine an example may take long without being wrong."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("lycomm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lycomm")
