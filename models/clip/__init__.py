"""Pixels in and out: video, images, masks, exposure, other programs' track files."""
