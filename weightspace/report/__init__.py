"""Report results: ``result.json`` files become tables, plots and one self-contained HTML page; networks are drawn."""

from weightspace.report._leaderboard import leaderboard_markdown
from weightspace.report._page import write_report
from weightspace.report._sheet import picture
from weightspace.report._tables import format_table

__all__ = ["format_table", "leaderboard_markdown", "picture", "write_report"]
