"""`python -m controller.metrics` prints the reference page."""

import sys

from controller.metrics.reference import reference_page

sys.stdout.write(reference_page())
