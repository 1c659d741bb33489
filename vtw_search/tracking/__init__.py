"""MLflow: a parent run per search, a run per study, a run per candidate. Importing this does not import mlflow."""

from vtw_search.tracking.params import redact
from vtw_search.tracking.settings import TrackingSettings
from vtw_search.tracking.tracker import MlflowTracker, NoTracker, Status, Tracker

__all__ = ["MlflowTracker", "NoTracker", "Status", "Tracker", "TrackingSettings", "redact"]
