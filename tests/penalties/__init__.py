"""Tests of poise.penalties: conformance with the oracles, laws, errors."""
