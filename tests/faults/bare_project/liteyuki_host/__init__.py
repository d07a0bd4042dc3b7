"""Found before the real package, because it lies in the working directory: its ``launch`` is ours, all else is real."""

import os

__path__ = [*__path__, os.environ["REAL_PACKAGE"]]
