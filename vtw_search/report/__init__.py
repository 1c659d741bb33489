"""What people read of a study: tables, figures and a page. Importing this loads neither matplotlib nor plotly."""

from vtw_search.report.confirmation import confirmation_frame
from vtw_search.report.console import show_studies
from vtw_search.report.curves import curves_figure
from vtw_search.report.front import front_figure
from vtw_search.report.heatmap import transfer_figure
from vtw_search.report.page import front_page
from vtw_search.report.tables import front_frame, study_table
from vtw_search.report.transfer import transfer_frame, transfer_table
from vtw_search.report.write import write_report

__all__ = [
    "confirmation_frame",
    "curves_figure",
    "front_figure",
    "front_frame",
    "front_page",
    "show_studies",
    "study_table",
    "transfer_figure",
    "transfer_frame",
    "transfer_table",
    "write_report",
]
