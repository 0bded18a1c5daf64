"""The HTML report: one self-contained file. `page` makes it; the other modules gather what it says."""

from prove.report.page.document import Picture, page

__all__ = ["Picture", "page"]
