"""Many videos at once: the ids of a file, through a session of your own, into a folder.

``AI302_API_KEY=… python many_at_once.py ids.txt videos/``
"""

import asyncio
import pathlib
import sys

import aiohttp

from veo3_async import Veo3Client, Veo3Error


async def save(veo: Veo3Client, request_id: str, folder: pathlib.Path) -> pathlib.Path:
    return await veo.download(await veo.wait(request_id), folder)


async def videos(
    session: aiohttp.ClientSession, request_ids: list[str], folder: pathlib.Path
) -> list[pathlib.Path]:
    """Return the files that are there, and print what became of the others."""
    async with Veo3Client(session=session, max_polls_per_second=5) as veo:  # used, never closed
        saving = [save(veo, request_id, folder) for request_id in request_ids]
        outcomes = await asyncio.gather(*saving, return_exceptions=True)
    files = []
    for request_id, outcome in zip(request_ids, outcomes, strict=True):
        match outcome:
            case pathlib.Path():
                files.append(outcome)
            case Veo3Error():
                print(f"{request_id}: {outcome.message}")
            case _:
                raise outcome
    return files


async def main(request_ids: list[str], folder: pathlib.Path) -> None:
    async with aiohttp.ClientSession() as session:
        print(*await videos(session, request_ids, folder), sep="\n")


if __name__ == "__main__":
    file, folder = map(pathlib.Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(file.read_text().split(), folder))
