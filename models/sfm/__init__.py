"""2D tracks -> a camera for each frame and a 3D point for each track."""
