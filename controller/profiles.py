"""The folder of users' profiles: read when a file in it changes, each file's faults told once, the last good ones kept."""

from __future__ import annotations

import logging
from pathlib import Path

from placement.catalogue import Catalogue
from placement.profiles.formats import Given, parse
from placement.profiles.user import ProfileError, UserProfile

log = logging.getLogger("plimsoll.profiles")

LOOK_SECONDS = 10.0
"""How often the folder is looked at."""

MOST_BYTES = 16 * 2**20
"""Largest file that is read."""


class ProfileFolder:
    """Profiles of the `.json` files of a folder (a mounted ConfigMap, say). An empty path: none."""

    def __init__(self, path: str, catalogue: Catalogue) -> None:
        """Nothing is read before `profiles`."""
        self._path = Path(path) if path else None
        self._catalogue = catalogue
        self._seen: dict[str, tuple[float, int]] = {}
        self._good: dict[str, tuple[UserProfile, ...]] = {}
        self._due = float("-inf")

    def profiles(self, now_seconds: float) -> tuple[UserProfile, ...]:
        """Every profile in force, in the order of file names."""
        if self._path is not None and now_seconds >= self._due:
            self._due = now_seconds + LOOK_SECONDS
            self._look(self._path)
        return tuple(profile for name in sorted(self._good) for profile in self._good[name])

    def _look(self, folder: Path) -> None:
        try:
            files = {
                file.name: file for file in folder.iterdir() if file.suffix == ".json" and file.is_file()
            }
        except OSError as error:
            if self._seen or not self._good:
                log.warning("%s: %s. Profiles of before stay in force.", folder, error.strerror or error)
            self._seen.clear()
            return
        for name in [name for name in self._good if name not in files]:
            del self._good[name]
        for name, file in sorted(files.items()):
            self._read(name, file)

    def _read(self, name: str, file: Path) -> None:
        try:
            stat = file.stat()
            mark = (stat.st_mtime, stat.st_size)
            if self._seen.get(name) == mark:
                return
            self._seen[name] = mark
            if stat.st_size > MOST_BYTES:
                log.error("%s has %d bytes, more than %d; split it", file, stat.st_size, MOST_BYTES)
                return
            found = parse(file.read_text(encoding="utf-8"), name, Given(), self._catalogue)
        except ProfileError as error:
            for sentence in error.sentences:
                log.exception(
                    "%s. %s", sentence, "Its last good content stays in force." if name in self._good else ""
                )
            return
        except (OSError, UnicodeDecodeError) as error:
            log.warning("%s: %s", file, error)
            return
        for sentence in found.told:
            log.warning("%s", sentence)
        self._good[name] = found.profiles
