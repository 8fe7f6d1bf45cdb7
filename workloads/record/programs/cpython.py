# SPDX-License-Identifier: Apache-2.0
"""What CPython is recorded doing: objects of all kinds, born and dying as in a small server.

Requests arrive as JSON, become objects with dictionaries, are kept in a table of sessions that
forgets the oldest, are sorted, joined and hashed, and go out as text.  Everything follows from the
seed.  Run it with PYTHONMALLOC=malloc: else most objects never reach malloc.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import OrderedDict

SEED = 20
REQUESTS = 2600
SESSIONS = 150


class Session:
    """One visitor's state."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: dict[str, int] = {}
        self.history: list[tuple[int, str]] = []


def request(source: random.Random, number: int) -> str:
    words = ["".join(source.choices("abcdefghij", k=source.randint(2, 12))) for _ in range(6)]
    basket = {word: source.randint(1, 9) for word in words}
    body = {"n": number, "who": f"user-{source.randint(0, 4000)}", "basket": basket}
    return json.dumps(body)


def serve(sessions: OrderedDict[str, Session], text: str) -> str:
    body = json.loads(text)
    session = sessions.pop(body["who"], None) or Session(body["who"])
    sessions[session.name] = session
    if len(sessions) > SESSIONS:
        sessions.popitem(last=False)
    for item, count in body["basket"].items():
        session.items[item] = session.items.get(item, 0) + count
    session.history.append((body["n"], hashlib.sha256(text.encode()).hexdigest()))
    best = sorted(session.items.items(), key=lambda pair: (-pair[1], pair[0]))[:10]
    return ", ".join(f"{name} x{count}" for name, count in best)


def main() -> None:
    source = random.Random(SEED)
    sessions: OrderedDict[str, Session] = OrderedDict()
    digest = hashlib.sha256()
    for number in range(REQUESTS):
        digest.update(serve(sessions, request(source, number)).encode())
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
