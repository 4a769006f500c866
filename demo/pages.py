"""What the pages of requests say while these are held or on standby, read as soon as the database shows one."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import msgspec

from demo.progress import every
from demo.view import View

#: a seat is held for a second at least, so is who stands by behind one that is given up
LOOK_SECONDS = 0.1
ANSWER_SECONDS = 5.0
AT_ONCE = 8


class Page(msgspec.Struct, frozen=True):
    """A request's own page, as far as it matters here."""

    request_id: str
    state: str
    attempts: int


#: by request id and state
Pages = Mapping[tuple[str, str], Page]


@contextmanager
def watched(api_url: str, view: View) -> Iterator[Pages]:
    """Notes pages as long as the block runs, each once in each state."""
    noted: dict[tuple[str, str], Page] = {}
    with httpx.Client(base_url=api_url, timeout=ANSWER_SECONDS) as client, ThreadPoolExecutor(AT_ONCE) as readers:

        def look() -> None:
            unseen = [request_id for request_id, state in view.waiting() if (request_id, state) not in noted]
            pages = readers.map(lambda request_id: _read(client, request_id), unseen)
            noted.update({(page.request_id, page.state): page for page in pages if page})

        with every(LOOK_SECONDS, look):
            yield noted


def _read(client: httpx.Client, request_id: str) -> Page | None:
    """The page as it stands; None where it does not come: it is asked for again."""
    try:
        response = client.get(f"/issuances/{request_id}").raise_for_status()
    except httpx.HTTPError:
        return None
    return msgspec.json.decode(response.content, type=Page)
