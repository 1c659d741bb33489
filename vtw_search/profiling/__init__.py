"""Profiles of models under policies: `profilers` measures, this package knows models and policies."""
