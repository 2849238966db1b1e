"""Scene -> files for other programs."""

from models.export.datasets import write_colmap
from models.export.footage import spread
from models.export.formats import FORMATS, export_and_score, footage_of, parse_formats

__all__ = ["FORMATS", "export_and_score", "footage_of", "parse_formats", "spread", "write_colmap"]
