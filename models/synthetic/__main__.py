"""Writes the sample clip with its ground truth: ``python -m models.synthetic FOLDER``."""

from models.run import run_script
from models.synthetic.sample import main

if __name__ == "__main__":
    run_script(main)
