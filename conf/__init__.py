"""Hydra configuration, shipped as data and read as `pkg://conf`."""
