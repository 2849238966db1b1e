"""The process and its surroundings.

Files in reading order:

- ``signals`` - Ctrl-C and SIGTERM at any moment
- ``streams`` - outputs that nobody reads
- ``lock`` - one run for each output folder
- ``kernels`` - compiled functions, with a cache where one can be written
"""
