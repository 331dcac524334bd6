"""What a process sets for itself as a whole, in a process of its own."""

import subprocess
import sys

LOOK = """
import gc, service.app, cv2
from service.pace import settle
before = len(gc.get_objects())
settle()
print(cv2.getNumThreads(), len(gc.get_objects()) < before / 100, gc.isenabled())
"""


def test_what_is_loaded_is_not_looked_through_again() -> None:
    said = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["1", "True", "True"]
