"""From samples and candidates to sample records."""

from vtw_search.engine.cost import Extent, LayerTokens, pass_cost
from vtw_search.engine.evaluator import OnePassEvaluator
from vtw_search.engine.failures import CandidateError, failures_of_a_candidate, out_of_memory_is_a_failure
from vtw_search.engine.one_by_one import BatchEvaluator, batches
from vtw_search.engine.preflight import check_images, check_prompts
from vtw_search.engine.processors import Forced

__all__ = [
    "BatchEvaluator",
    "CandidateError",
    "Extent",
    "Forced",
    "LayerTokens",
    "OnePassEvaluator",
    "batches",
    "check_images",
    "check_prompts",
    "failures_of_a_candidate",
    "out_of_memory_is_a_failure",
    "pass_cost",
]
