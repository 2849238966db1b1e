"""A listener to a run that keeps what it hears."""

from models.run.progress import Progress


class Heard(Progress):
    """Keeps the sentences and the steps of a run."""

    def __init__(self):
        self.sentences: list[str] = []
        self.steps: list[tuple[str, int, int]] = []

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        self.steps.append((stage, done, total))

    def say(self, text: str) -> None:
        self.sentences.append(text)
