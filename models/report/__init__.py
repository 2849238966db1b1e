"""For a person to look at: videos, charts, the results page, the live viewer."""
