"""What is drawn from the schemas: sound objects are taken by store, loader and types; spoilt ones upset nobody."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from controller.resources import manifests, rules
from controller.resources.kinds import BY_KIND
from controller.store.embedded import open_store
from controller.store.errors import StoreError
from runtime.clock import VirtualClock
from tests.resources.generating import sound, spoilt
from tests.store.following import now

FEWER = settings(max_examples=settings.default.max_examples // 2)
KIND = pytest.mark.parametrize("kind", sorted(BY_KIND))


@KIND
def test_a_sound_object_is_taken_and_read_back(kind: str) -> None:
    store = open_store(VirtualClock(1_790_000_000.0))

    @FEWER
    @given(obj=sound(kind))
    def holds(obj: Any) -> None:
        made = now(store.create(BY_KIND[kind].resource, obj, field_manager="kubectl", dry_run=True))
        assert rules.broken(kind, made) == []
        assert manifests.parse(json.dumps(obj, ensure_ascii=False))[1] == []
        read, written = (msgspec.convert(each, BY_KIND[kind].type) for each in (made, obj))
        assert getattr(read, "spec", None) == getattr(written, "spec", None), (
            "defaults of schema and type differ"
        )

    holds()


@KIND
def test_the_loader_refuses_what_the_store_refuses_or_a_rule_forbids(kind: str) -> None:
    store = open_store(VirtualClock(1_790_000_000.0))

    @FEWER
    @given(obj=spoilt(kind))
    def holds(obj: Any) -> None:
        problems = manifests.parse(json.dumps(obj, ensure_ascii=False))[1]
        try:
            made = now(store.create(BY_KIND[kind].resource, obj, field_manager="kubectl", dry_run=True))
        except StoreError:
            assert problems
        else:
            assert bool(problems) == bool(rules.broken(kind, made)), problems

    holds()
