"""Kafka's jars: named and hashed in kafka.lock, fetched exactly, checked before every start."""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.errors import StackError
from stack.files import write_atomically

LOCK = Path(__file__).with_name("kafka.lock")
BROKER = "org.apache.kafka:kafka_2.13:4.3.1"
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"  # without it the broker logs nothing
FETCHERS = 8
ATTEMPTS = 2


@dataclass(frozen=True)
class Jar:
    """One locked file: its Maven coordinates and what it must hash to."""

    group: str
    artifact: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def path(self) -> Path:
        """Its place in the local Maven repository."""
        return repository().joinpath(*self.group.split("."), self.artifact, self.version, self._file_name)

    @property
    def intact(self) -> bool:
        """Whether the whole file lies there, unchanged."""
        return self.path.exists() and sha256(self.path) == self.sha256

    @property
    def _file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def repository() -> Path:
    """The local Maven repository, shared with Maven itself."""
    return Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")


def sha256(path: Path) -> str:
    """The hash of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locked() -> list[Jar]:
    """The jars of the lock file."""
    return [Jar(*line.replace(" ", ":").split(":")) for line in LOCK.read_text().splitlines()]


def all_there() -> bool:
    """Whether no locked jar is missing; what they contain is checked when Kafka starts."""
    return all(jar.path.exists() for jar in locked())


def fetch(jars: Sequence[Jar]) -> None:
    """Makes every jar lie in the repository, intact; raises StackError naming one that cannot be had."""
    with _alone_in_repository():
        absent = [jar for jar in jars if not jar.intact]
        if absent:
            print(f"fetching {len(absent)} jars into {repository()}", flush=True)
        with ThreadPoolExecutor(FETCHERS) as pool:
            list(pool.map(_fetch, absent))


def _fetch(jar: Jar) -> None:
    reason: object = "its content is not what kafka.lock says"
    for _ in range(ATTEMPTS):
        jar.path.unlink(missing_ok=True)
        try:
            download(jar.group, jar.artifact, jar.version)
        except (OSError, RuntimeError) as error:
            reason = error
        if jar.intact:
            return
    jar.path.unlink(missing_ok=True)
    raise StackError(f"{jar} cannot be fetched: {reason}; check the network, or set KAFKA_BOOTSTRAP_SERVERS")


def download(group: str, artifact: str, version: str) -> Path:
    """Has jgo put one jar into the repository; a file that lies there is left as it is."""
    from jgo.maven import MavenContext  # noqa: PLC0415  a quarter of a second, spent only to fetch

    context = MavenContext(repo_cache=repository())
    return context.project(group, artifact).at_version(version).artifact().resolve()


def resolve() -> list[Jar]:
    """What Kafka needs at run time according to Maven's rules, fetched and hashed."""
    import jgo  # noqa: PLC0415  see download

    # One after the other: resolved together, each would impose its versions on the other's dependencies.
    versions = {(jar.groupId, jar.artifactId): jar.version for root in (LOGGING, BROKER) for jar in jgo.resolve(root)}
    with _alone_in_repository(), ThreadPoolExecutor(FETCHERS) as pool:
        return list(pool.map(_hashed, sorted((*names, version) for names, version in versions.items())))


def _hashed(coordinates: tuple[str, str, str]) -> Jar:
    return Jar(*coordinates, sha256(download(*coordinates)))


def write_lock(jars: Sequence[Jar]) -> None:
    """Writes the lock file anew."""
    LOCK.write_text("".join(f"{jar} {jar.sha256}\n" for jar in jars))


@contextmanager
def _alone_in_repository() -> Iterator[None]:
    repository().mkdir(parents=True, exist_ok=True)
    descriptor = os.open(repository(), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # another stack may be fetching: half of its file would look corrupt
        yield
    finally:
        os.close(descriptor)


def main(class_path: Path) -> None:
    """Fetches the locked jars and writes the option that names them for Java."""
    jars = locked()
    try:
        fetch(jars)
    except StackError as error:
        sys.exit(str(error))
    write_atomically(class_path, '-cp "{}"\n'.format(":".join(str(jar.path) for jar in jars)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
