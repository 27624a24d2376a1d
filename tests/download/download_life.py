"""A process that downloads one video, for tests that trace or kill it.

``python download_life.py URL PATH [overwrite]``
"""

from __future__ import annotations

import asyncio
import sys

from veo3_async._download.downloader import Downloader


async def main(url: str, path: str, *words: str) -> None:
    """Download, over what is there if asked to."""
    downloader = Downloader(allow_private=True)
    await downloader.download(url, path, overwrite="overwrite" in words)
    await downloader.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
