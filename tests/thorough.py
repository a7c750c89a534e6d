"""Whether tests run in CI: there nothing is skipped, and tests that try many cases try more.

The cases in CI are more of the same kind. What a test holds, it holds with the fewer ones too.
"""

import os

CI = os.environ.get("CI", "") not in {"", "0", "false"}
THOROUGH = os.environ.get("BACKPACK_THOROUGH", "") not in {"", "0", "false"}
"""Whether to try also what takes minutes, such as every agent framework from the registry."""
