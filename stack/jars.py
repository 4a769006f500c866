"""Kafka's jars: pinned with their hashes in kafka.lock, downloaded once, verified before every start."""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stack.errors import StackError
from stack.files import write_atomically
from stack.server_env import ROOT

LOCK = Path(__file__).with_name("kafka.lock")
BROKER = "org.apache.kafka:kafka_2.13:4.3.1"
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"  # without it the broker logs nothing
PARALLEL_DOWNLOADS = 8
ATTEMPTS = 2


@dataclass(frozen=True)
class Jar:
    """One jar of the lock file: its Maven coordinates and expected SHA-256, in hex."""

    group: str
    artifact: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def path(self) -> Path:
        """Its path in the local Maven repository."""
        name = f"{self.artifact}-{self.version}.jar"
        return repository().joinpath(*self.group.split("."), self.artifact, self.version, name)

    @property
    def intact(self) -> bool:
        """Whether the file exists and matches its hash."""
        return self.path.exists() and sha256(self.path) == self.sha256


def repository() -> Path:
    """Return the local Maven repository, which Maven itself uses too; for a user without a home, one of the stack's."""
    if chosen := os.environ.get("M2_REPO"):
        return Path(chosen)
    with suppress(RuntimeError):  # the user has neither HOME nor an entry in the system's list
        home = Path.home()
        if os.access(home, os.W_OK | os.X_OK):
            return home / ".m2" / "repository"
    return ROOT / ".stack" / "m2"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lock() -> list[Jar]:
    """Return the jars of the lock file."""
    return [Jar(*line.replace(" ", ":").split(":")) for line in LOCK.read_text().splitlines()]


def all_present() -> bool:
    """Return whether every locked jar exists; the hashes are verified when Kafka starts."""
    return all(jar.path.exists() for jar in read_lock())


def download_missing(jars: Sequence[Jar]) -> None:
    """Download each jar that is missing or damaged; raises StackError for a jar that cannot be downloaded intact."""
    with _repository_locked():
        missing = [jar for jar in jars if not jar.intact]
        if missing:
            print(f"downloading {len(missing)} jars into {repository()}", flush=True)
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            list(pool.map(_download_verified, missing))


def _download_verified(jar: Jar) -> None:
    reason: object = "its content does not match the hash in kafka.lock"
    for _ in range(ATTEMPTS):
        jar.path.unlink(missing_ok=True)
        try:
            download(jar.group, jar.artifact, jar.version)
        except (OSError, RuntimeError) as error:
            reason = error
        if jar.intact:
            return
    jar.path.unlink(missing_ok=True)
    raise StackError(
        f"{jar} cannot be downloaded: {reason}; check the network, or set KAFKA_BOOTSTRAP_SERVERS to a running Kafka"
    )


def download(group: str, artifact: str, version: str) -> Path:
    """Download one jar into the repository with jgo; an existing file is not replaced."""
    from jgo.maven import MavenContext  # noqa: PLC0415  the import takes 0.25 s and is needed only here

    context = MavenContext(repo_cache=repository())
    return context.project(group, artifact).at_version(version).artifact().resolve()


def resolve() -> list[Jar]:
    """Resolve Kafka's runtime dependencies by Maven's rules; download and hash each jar."""
    import jgo  # noqa: PLC0415  see download

    # Resolve the two roots separately: together, each would force its versions on the other's dependencies.
    versions = {(jar.groupId, jar.artifactId): jar.version for root in (LOGGING, BROKER) for jar in jgo.resolve(root)}
    with _repository_locked(), ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        coordinates = sorted((group, artifact, version) for (group, artifact), version in versions.items())
        return list(pool.map(_download_and_hash, coordinates))


def _download_and_hash(coordinates: tuple[str, str, str]) -> Jar:
    return Jar(*coordinates, sha256(download(*coordinates)))


def write_lock(jars: Sequence[Jar]) -> None:
    """Replace the lock file."""
    LOCK.write_text("".join(f"{jar} {jar.sha256}\n" for jar in jars))


@contextmanager
def _repository_locked() -> Iterator[None]:
    repository().mkdir(parents=True, exist_ok=True)
    descriptor = os.open(repository(), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # a file that another stack is still writing would look damaged
        yield
    finally:
        os.close(descriptor)


def main(class_path: Path) -> None:
    """Download the locked jars and write Java's class path option for them to a file."""
    jars = read_lock()
    try:
        if ":" in str(repository()):
            raise StackError(f"Java cannot use jars in {repository()}: set M2_REPO to a directory without a colon")
        download_missing(jars)
    except StackError as error:
        sys.exit(str(error))
    paths = ":".join(str(jar.path) for jar in jars)
    quoted = paths.replace("\\", r"\\").replace('"', r"\"")
    write_atomically(class_path, f'-cp "{quoted}"\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
