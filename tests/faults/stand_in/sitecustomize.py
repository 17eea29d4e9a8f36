"""Stands in for the look-up's child process, where this folder is on its PYTHONPATH.

Python imports it at every start. It lets the exporter itself be; a look-up does as the file says that
``TEST_LOOK_UP`` names: ``hang``, ``garbage``, or else print the file as the answer.
"""

import os
import sys
import time

if any("ray_lookup" in word for word in sys.orig_argv):
    with open(os.environ["TEST_LOOK_UP"], "rb") as file:
        answer = file.read()
    if answer == b"hang":
        time.sleep(3600)
    os.write(1, b"\x00\xffWARNING: {not json\n" * 1000 if answer == b"garbage" else answer)
    os._exit(0)
