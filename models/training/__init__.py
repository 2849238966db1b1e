"""Clip and tracks -> trained scene."""
