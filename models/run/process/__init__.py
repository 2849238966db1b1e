"""The process and its surroundings.

Files in reading order:

- ``signals`` - Ctrl-C and SIGTERM at any moment
- ``streams`` - outputs that nobody reads
- ``lock`` - one run for each output folder
- ``ranks`` - the processes of a run that torchrun started
- ``paged`` - large arrays in temporary files
- ``kernels`` - compiled functions, with a cache where one can be written
"""
