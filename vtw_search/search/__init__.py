"""Candidates, limits, the choice among them, and the study that measures them."""
