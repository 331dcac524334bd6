"""What a process of the service sets for itself as a whole once all that stays is loaded."""

import gc


def settle() -> None:
    """Keep requests from waiting for work that is none of theirs; once, when the process is ready.

    The garbage collector's whole search goes through everything that lives and holds up every thread for
    0.1 s and more; what was loaded until now is taken out of it. A picture is worked on by one thread:
    OpenCV's own would only take processors from other pictures.
    """
    import cv2  # late: its pixel limit comes from the environment, which the settings set

    cv2.setNumThreads(1)
    gc.collect()
    gc.freeze()
