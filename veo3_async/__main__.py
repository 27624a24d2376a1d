"""``python -m veo3_async`` is ``veo3-async``."""

from __future__ import annotations

import sys

from veo3_async.cli import main

sys.exit(main())
