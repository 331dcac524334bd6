"""The long form of proofs, which `make promises` asks for with INLIER_LONG: more repetitions, longer load."""

import os

LONG = bool(os.environ.get("INLIER_LONG"))
WHY = "minutes; make promises runs it, as does INLIER_LONG=1"
