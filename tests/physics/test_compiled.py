"""Machine code of the physics: never found for another text than it was made of, and equal to its source to the last bit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simulator import compiled

ROOT = Path(compiled.__file__).parents[1]

RUN = """
import json, sys
import numpy as np
from simulator import compiled
from simulator.physics.engine import EngineInstance
from tests.physics.test_engine_agreement import play, scenario
from tests.physics.worlds import A100, LLAMA_7B
told = []
for seed in range(40):
    spec, requests, commands = scenario(seed)
    engine = EngineInstance(A100, LLAMA_7B, spec)
    for event in play(engine, requests, commands):
        told.append([event.at_seconds.hex(), event.kind.value, event.request_id, event.tokens])
    told.append([str(engine.load()), str(engine.phases())])
print(json.dumps([compiled.in_use(), told]))
"""


@pytest.fixture
def made(tmp_path, monkeypatch) -> Path:
    """A cache in which the physics seems compiled: the files are there, and nothing in them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(compiled.SWITCH, raising=False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    made = compiled.folder()
    made.mkdir(parents=True)
    (made / compiled.place(f"{compiled.GROUP}__mypyc")).touch()
    return made


def nowhere(_: Path) -> Path:
    raise RuntimeError("Could not determine home directory.")


def finders() -> list[compiled.Finder]:
    return [each for each in sys.meta_path if isinstance(each, compiled.Finder)]


def test_what_was_compiled_is_found_before_its_source(made, monkeypatch):
    monkeypatch.setattr(compiled, "_loads", lambda _: True)
    compiled.switch_on()
    (finder,) = finders()
    assert sys.meta_path[0] is finder
    spec = finder.find_spec("simulator.physics.kv", None)
    assert spec is not None
    assert spec.origin == str(made / compiled.place("simulator.physics.kv"))
    assert finder.find_spec("simulator.physics.node", None) is None


@pytest.mark.parametrize(
    "why",
    [
        "the source has changed",
        "nobody has compiled",
        "it is switched off",
        "no sources",
        "no home",
        "it does not load here",
    ],
)
def test_it_is_left_alone_where(why, made, tmp_path, monkeypatch):
    if why == "the source has changed":
        copies = [tmp_path / path.name for path in compiled.sources()]
        for copy, path in zip(copies, compiled.sources(), strict=True):
            copy.write_bytes(path.read_bytes())
        copies[0].write_text(copies[0].read_text() + "\n")
        monkeypatch.setattr(compiled, "sources", lambda: copies)
        assert compiled.folder() != made
    elif why == "nobody has compiled":
        shutil.rmtree(made)
    elif why == "no sources":
        monkeypatch.setattr(compiled, "sources", lambda: [tmp_path / "gone.py"])
    elif why == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "expanduser", nowhere)
    elif why == "it is switched off":
        monkeypatch.setenv(compiled.SWITCH, "interpreted")
    if why != "it does not load here":  # the file of the fixture is no library
        monkeypatch.setattr(compiled, "_loads", lambda _: True)
    compiled.switch_on()
    assert finders() == []


def test_the_tests_look_inside_the_source():
    assert not compiled.in_use()


@pytest.mark.slow
def test_machine_code_and_source_tell_the_same_events_to_the_last_bit(tmp_path):
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler on this machine")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    del environment[compiled.SWITCH]
    subprocess.run([sys.executable, ROOT / "tools" / "compile_physics.py"], env=environment, check=True)
    told = []
    for switch in ({}, {compiled.SWITCH: "interpreted"}):
        done = subprocess.run(
            [sys.executable, "-c", RUN],
            env={**environment, **switch},
            check=True,
            capture_output=True,
            cwd=ROOT,
        )
        told.append(json.loads(done.stdout))
    (code, events), (source, others) = told
    assert (code, source) == (True, False)
    assert events == others
    assert len(events) > 1000
