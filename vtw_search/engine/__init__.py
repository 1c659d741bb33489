"""From samples and candidates to sample records."""

from vtw_search.engine.one_by_one import BatchEvaluator, batches, check_images

__all__ = ["BatchEvaluator", "batches", "check_images"]
