"""Measures lycomm and its peers in interleaved rounds: ``python -m benchmarks``, see ``docs/performance.md``."""
