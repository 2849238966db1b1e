"""Log-odds of motion from the misfit of optical flow."""

import numpy as np
from jaxtyping import Float

from models.motion.evidence import Evidence
from models.motion.options import MotionOptions

# Bound of the log-odds that flow gives a pixel of one frame.
_CERTAIN = 2.5
# Misfit of static pixels in a perfect frame: a larger median is the frame's noise.
_USUAL_MISFIT = 0.8


def estimate_motion_odds(
    evidence: Evidence, options: MotionOptions = MotionOptions()
) -> Float[np.ndarray, "F h w"]:
    """Log-odds of motion from each frame's misfit, averaged along the flow over the nearby
    frames."""
    single = np.zeros(evidence.misfit.shape, np.float32)
    for t, (misfit, support) in enumerate(zip(evidence.misfit, evidence.support, strict=True)):
        seen = support > 0
        noise = max(1.0, np.median(misfit[seen]) / _USUAL_MISFIT) if seen.any() else 1.0
        odds = np.clip(1.2 * (misfit / noise - options.threshold), -_CERTAIN, _CERTAIN)
        odds = np.where(odds < 0, odds * evidence.texture[t], odds)
        # Three flow vectors are full support.
        single[t] = odds * np.minimum(support / 3, 1)
    return evidence.average_along_flow(single)
