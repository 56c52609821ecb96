"""What the tests of micraframe and of its plugins share."""

import os

from hypothesis import settings

# The same examples in every run: what passed today passes tomorrow. HYPOTHESIS_PROFILE=explore looks for more.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
