"""Clips one after the other on this machine."""

from collections.abc import Callable, Sequence

from models.batch.steps import ClipPlan, Step
from models.batch.work import LostScriptError, Outcome, run_step


def run_in_order(
    plans: Sequence[ClipPlan], threads: int, retries: int, tell: Callable[[Step | Outcome], None]
) -> None:
    """Runs the steps of each clip; a failed step ends its clip, and the next clip begins.

    Args:
        threads: threads that a script computes with.
        retries: further tries of a script that was ended from outside.
        tell: hears each step as it begins and its outcome.
    """
    for plan in plans:
        for step in plan.steps:
            tell(step)
            outcome = _run(step, threads, retries)
            tell(outcome)
            if not outcome.ok:
                break


def _run(step: Step, threads: int, retries: int) -> Outcome:
    """The outcome of the first try that was not ended from outside, or of the last."""
    for _ in range(retries + 1):
        try:
            return run_step(step, threads)
        except LostScriptError as error:
            lost = Outcome(step.clip, step.script, False, 0.0, str(error))
    return lost
