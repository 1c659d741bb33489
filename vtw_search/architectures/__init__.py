"""Configurations of released models without their weights: enough to count and to time a model of that size."""
