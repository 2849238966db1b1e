"""Scene, camera and time -> picture; model.pt; picture metrics."""
