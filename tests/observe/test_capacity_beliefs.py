"""Beliefs of the operator: the roofline, users' profiles from a folder, and what running engines show."""

import json
import logging
import os

import msgspec
import numpy as np

from cluster import events as ev
from cluster.base import Ref
from cluster.serving import LoadHistogram, Objective, Replica, ReplicaPhase, Service
from controller.beliefs import CapacityBeliefs
from controller.config import ProfileSettings
from controller.profiles import ProfileFolder
from placement.catalogue import load
from policies.frames import belief_of
from tests.observe.objects import L4, MODEL, NOW, Play
from tests.observe.test_live import seen

CHAT = Objective(ttft_seconds=2.0, tpot_seconds=0.2)
SERVICE = Service(ref=Ref("ModelService", "shop/chat"), model=MODEL, objectives=(CHAT,), variants=(L4,))
REPLICA = Replica(
    key="shop/chat-0",
    ref=Ref("Pod", "shop/chat-0"),
    service="shop/chat",
    launcher="shop/chat-0",
    variant=L4,
    phase=ReplicaPhase.READY,
)
LOAD = LoadHistogram(
    service="shop/chat", input_edges=(500,), output_edges=(200,), cells=(1.0,), window_seconds=60.0
)
PROFILE = {"profiles": [{"model": "m", "accelerator": "L4", "input_edges": [25, 16000], "output_edges": [25, 2000], "rates": [[9, 1], [1, 0.1]]}]}  # fmt: skip


def world(*nouns):
    play = Play()
    for noun in (SERVICE, *nouns):
        play.observer.fold(ev.Seen(source="test", observed_seconds=NOW, delivered_seconds=NOW, noun=noun))
    return play


def belief(play):
    (found,) = play.observer.beliefs.capacity.values()
    return found


def test_without_settings_the_roofline_is_believed_once():
    play, beliefs = world(), CapacityBeliefs()
    assert (beliefs.refresh(play.observer, NOW), beliefs.refresh(play.observer, NOW + 1)) == (1, 0)
    assert (belief(play).source, belief(play).error, belief(play).as_of_seconds) == ("roofline", 0.16, NOW)
    beliefs.hear(seen(0, 0))
    assert beliefs._live.drain() == []


def test_a_users_profile_comes_and_goes_with_its_file(tmp_path):
    play, beliefs = world(), CapacityBeliefs(settings=ProfileSettings(folder=str(tmp_path)))
    assert beliefs.refresh(play.observer, NOW) == 1
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(PROFILE))
    assert beliefs.refresh(play.observer, NOW + 5) == 0, "looked at every ten seconds"
    assert beliefs.refresh(play.observer, NOW + 10) == 1
    assert (belief(play).source, belief(play).error) == ("user", 0.1)
    file.unlink()
    assert beliefs.refresh(play.observer, NOW + 20) == 1
    assert belief(play).source == "roofline"


def test_a_broken_file_is_told_once_and_what_it_said_before_stays(tmp_path, caplog):
    folder = ProfileFolder(str(tmp_path), load())
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(PROFILE))
    assert len(folder.profiles(0.0)) == 1
    file.write_text(json.dumps(PROFILE).replace("0.1]", "-1]"))
    os.utime(file, (1, 1))
    with caplog.at_level(logging.ERROR):
        assert len(folder.profiles(10.0)) == 1
        assert len(folder.profiles(20.0)) == 1
    assert len(caplog.records) == 1
    assert "0.1" not in caplog.text
    assert "Its last good content stays in force" in caplog.text


def test_a_folder_that_is_not_there_is_told_and_nothing_is_believed(tmp_path, caplog):
    folder = ProfileFolder(str(tmp_path / "none"), load())
    with caplog.at_level(logging.WARNING):
        assert folder.profiles(0.0) == ()
    assert "No such file" in caplog.text


def test_running_engines_teach_and_come_first_after_twenty_windows():
    play = world(REPLICA, LOAD)
    beliefs = CapacityBeliefs(settings=ProfileSettings(measured=True))
    assert beliefs.refresh(play.observer, NOW) == 1
    shipped = belief(play)
    assert shipped.source == "shipped"
    for window in range(22):
        beliefs.hear(
            seen(10.0 * window, 200 * window)
        )  # 4 requests, 20 tokens/s: 0.2 s a token, far from the roofline
    assert beliefs.refresh(play.observer, NOW + 20) == 0, "learned every thirty seconds"
    assert beliefs.refresh(play.observer, NOW + 230) == 1
    online = belief(play)
    assert online.source == "online"
    assert sum(online.grid) < 0.5 * sum(shipped.grid)
    assert online.as_of_seconds == NOW + 230


def test_samples_of_a_replica_that_nobody_knows_teach_nothing():
    play = world()
    beliefs = CapacityBeliefs(settings=ProfileSettings(measured=True))
    for window in range(22):
        beliefs.hear(seen(10.0 * window, 800 * window))
    assert beliefs.refresh(play.observer, NOW + 230) == 1
    assert belief(play).source == "shipped"
    assert beliefs._sources.live == {}


def test_engines_of_a_product_without_figures_teach_nothing_and_stop_nobody():
    play, beliefs = world(REPLICA, LOAD), CapacityBeliefs(settings=ProfileSettings(measured=True))
    product = play.observer.live("accelerators")["L4"]
    unknown = msgspec.structs.replace(product, flops={})
    play.observer.fold(ev.Seen(source="test", observed_seconds=NOW, delivered_seconds=NOW, noun=unknown))
    for window in range(22):
        beliefs.hear(seen(10.0 * window, 800 * window))
    beliefs.refresh(play.observer, NOW + 230)
    assert beliefs._sources.live == {}
    assert belief(play).excluded == "ProfileHole"


def test_an_engine_that_tells_neither_its_cache_nor_its_load_spoils_nothing():
    play, beliefs = world(REPLICA), CapacityBeliefs(settings=ProfileSettings(measured=True))
    for window in range(25):
        beliefs.hear(seen(10.0 * window, 800 * window, kv_free_tokens=0, kv_capacity_tokens=0))
    beliefs.refresh(play.observer, NOW + 260)
    assert belief(play).source == "online"
    learned = beliefs.learned()
    assert np.isfinite(learned.mean).all()
    assert np.isfinite(learned.triangle).all()


def test_engines_of_two_images_are_believed_apart_and_a_former_one_is_forgotten():
    old = msgspec.structs.replace(SERVICE, image="vllm/vllm-openai:v1")
    other = msgspec.structs.replace(old, ref=Ref("ModelService", "shop/docs"), image="lmsysorg/sglang:v2")
    play, beliefs = world(old, other, REPLICA, LOAD), CapacityBeliefs(settings=ProfileSettings(measured=True))
    for window in range(25):
        beliefs.hear(seen(10.0 * window, 200 * window))
    assert beliefs.refresh(play.observer, NOW + 260) == 2

    def sources():
        found = (belief_of(play.observer.beliefs, each, L4, CHAT) for each in (old, other))
        return [each.source for each in found]

    assert sources() == ["online", "shipped"]
    renewed = msgspec.structs.replace(other, image="lmsysorg/sglang:v3")
    play.observer.fold(ev.Seen(source="test", observed_seconds=NOW, delivered_seconds=NOW, noun=renewed))
    assert beliefs.refresh(play.observer, NOW + 270) == 1
    kept = play.observer.beliefs.capacity
    assert len(kept) == 2
    assert sorted(key.rpartition(":")[2] for key in kept) == ["v1", "v3"]
    assert set(beliefs._state.asked) == set(beliefs._state.beliefs) == set(beliefs._told) == set(kept)


def test_a_belief_of_no_image_holds_for_all():
    play = world()
    CapacityBeliefs().refresh(play.observer, NOW)
    any_image = msgspec.structs.replace(SERVICE, image="vllm/vllm-openai:v1")
    assert belief_of(play.observer.beliefs, any_image, L4, CHAT) is belief(play)


def test_a_load_of_the_wrong_size_is_passed_over():
    play = world(REPLICA, msgspec.structs.replace(LOAD, cells=(1.0, 2.0)))
    beliefs = CapacityBeliefs(settings=ProfileSettings(measured=True))
    for window in range(22):
        beliefs.hear(seen(10.0 * window, 800 * window))
    beliefs.refresh(play.observer, NOW + 230)
    assert sum(beliefs._sources.live.values()) == 21
