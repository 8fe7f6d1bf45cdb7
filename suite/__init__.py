# SPDX-License-Identifier: Apache-2.0
"""nvcrucible's orchestrator: is an NVM allocator fast, and does it survive?"""

__all__ = ["__version__"]

__version__ = "0.1.0"
