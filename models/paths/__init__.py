"""Cameras -> cameras: trajectories for new views."""
