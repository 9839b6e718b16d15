"""Every reason code: which numbers it must carry, its severity, and its one sentence.

`need`, `have` and `limit` are the reason's slots; any other name is a fact. The sentence is a format
string over `subject`, `choice` and those names.
"""

from __future__ import annotations

from typing import NamedTuple


class CodeSpec(NamedTuple):
    """Declared facts, severity (`Normal` or `Warning`) and sentence template of a code."""

    facts: tuple[str, ...]
    severity: str
    template: str


def _normal(template: str, *facts: str) -> CodeSpec:
    return CodeSpec(facts, "Normal", template)


def _warning(template: str, *facts: str) -> CodeSpec:
    return CodeSpec(facts, "Warning", template)


CODES: dict[str, CodeSpec] = {
    # select, commit
    "MixChosen": _normal("{choice} carry {have} for a demand of {need} at {cost}; {limit} of the pools were free.",
                         "need", "have", "limit", "cost"),
    "MixKept": _normal("{choice} still carry {have} for a demand of {need} at {cost}; changing would save less than {limit}.",
                       "need", "have", "limit", "cost"),
    "MixHeld": _normal("{choice} still carry {have} for a demand of {need} at {cost}; a mix is not changed for its price within"
                       " {limit} of its choice.", "need", "have", "limit", "cost"),
    "NothingWanted": _normal("no replica is wanted: demand {need}, floor {limit}, {have} in use.", "need", "have", "limit"),
    "ShortOfCapacity": _warning("only {have} of {need} can be carried: {limit} were free in the allowed pools, so {shed} is shed.",
                                "need", "have", "limit", "shed"),
    "LossExposed": _warning("losing one replica of {choice} would leave {have} of the {need} unserved that are to survive it"
                            " (priced at {limit}): one more replica was dearer, or there is no GPU for it.",
                            "need", "have", "limit"),
    "ObjectiveImpossible": _warning("no allowed GPU can keep the objective: the nearest, {choice}, needs {need} where {limit} is asked"
                                    " ({have} were tried).", "need", "have", "limit"),
    "ModelTooLarge": _warning("no allowed GPU holds the model: the nearest, {choice}, needs {need} of memory and has {limit} ({have}"
                              " tried); name a variant with more GPUs, a narrower precision, or a larger product.",
                              "need", "have", "limit"),
    "NothingPriced": _warning("no allowed GPU has a usable price: {choice} has {have}, and at least {need} is needed; give a pool of"
                              " its AcceleratorClass dollarsPerGpuHour.", "need", "have"),
    "NoInventory": _warning("{need} wanted, but the cluster has {have} of the allowed products ({limit} in all).",
                            "need", "have", "limit"),
    "TpotFloor": _warning("{choice} cannot be faster than {have} a token, {need} is asked.", "need", "have"),
    "TtftFloor": _warning("{choice} cannot start answering before {have}, {need} is asked.", "need", "have"),
    "MemoryTooSmall": _warning("{choice} would need {need} of memory and has {have}.", "need", "have"),
    "PriceTooHigh": _normal("{choice} would cost {need} instead of {have}.", "need", "have"),
    "UnknownAccelerator": _warning("{choice} is not a known AcceleratorClass ({have} are known; {need} named).", "need", "have"),
    "PriceMissing": _warning("{choice} has no usable price ({have}); at least {need} is needed.", "need", "have"),
    "ProfileHole": _warning("{choice} has no profile for requests of this size ({have} usable, {need} needed).", "need", "have"),
    "TooFewGpus": _normal("{choice} would take {need}, and {have} are free for it.", "need", "have"),
    "ServesPartly": _normal("{choice} keeps the promise for {have} of the requests only.", "have"),
    "MixAllotted": _normal("{need} want more GPUs than there are and were planned together. This one gets {choice}, and {shed}"
                           " of its load stays unserved. Together they cost {have} with unserved load at its price; no plan"
                           " costs less than {limit}.", "need", "have", "limit", "shed"),
    "PoolScarce": _warning("one more GPU of {choice} would save about {limit}: {need} compete for its {have}.",
                           "need", "have", "limit"),
    "WattsScarce": _warning("replicas may be planned to draw {have} more in {choice}, and {need} are wanted; one more kilowatt would"
                            " save about {limit}.", "need", "have", "limit"),
    "ClassShed": _warning("{have} of the {need} of class {choice} are left unserved, priced at {limit}.",
                          "need", "have", "limit"),
    # scale
    "ScaledUp": _normal("load {need} is above {limit} of the {have} planned for, so {wanted} is planned.",
                        "need", "have", "limit", "wanted"),
    "ScaledDown": _normal("load {need} stayed below {limit} of the {have} planned for, so {wanted} is planned.",
                          "need", "have", "limit", "wanted"),
    "ScaleHeld": _normal("load {need} is within {limit} of the target for the {have} planned for.", "need", "have", "limit"),
    "ScaleBounded": _normal("{need} wanted, bounded to {have} by {choice} ({limit}).", "need", "have", "limit"),
    "ScaledToZero": _normal("idle for {have}, longer than the keep-alive of {limit}; {need} wanted.", "need", "have", "limit"),
    "ScaledFromZero": _normal("{need} wait at the gateway and {have} are ready; starting for {limit}.", "need", "have", "limit"),
    "SizedByUser": _normal("mode {choice}: {need} of the reference variant, as asked in spec.replicas ({have} before).",
                           "need", "have"),
    # warm
    "KeptWarm": _normal("{need} kept warm: idle for {have} of a keep-alive of {limit}.", "need", "have", "limit"),
    "WentCold": _normal("no longer kept warm: idle for {have}, keep-alive {limit} ({need} kept).", "need", "have", "limit"),
    # place
    "ReplicaPlaced": _normal("{choice}: {need} needed, {have} free there, {left} left after it, at a cost of {cost};"
                             " {limit} were fit.", "need", "have", "limit", "left", "cost"),
    "ReplicaTried": _normal("{choice} is tried again, its pods having been refused: {need} needed, {have} free on its node, {left} left"
                            " after it; {limit} were fit.", "need", "have", "limit", "left"),
    "ReplicaUnplaceable": _warning("{choice} needs {need} on one node; the best node has {have} ({limit} of the pool are open).",
                                   "need", "have", "limit"),
    "PlacesConfined": _warning("{choice}: {limit} of {open} open can be used, with {have} free there and {elsewhere} free on the"
                               " others; {need} needed.", "need", "have", "limit", "open", "elsewhere"),
    "ReplicaMoves": _normal("moves {choice}: {need} fit nowhere in one piece though {have} are free in its pool; {moved} move, at most"
                            " {limit} a minute.", "need", "have", "limit", "moved"),
    "ReplicaMoved": _normal("{choice} ends where it was: its successor was ready after {have}; {need} are freed, drained within {limit}.",
                            "need", "have", "limit"),
    "ReplicaSurplus": _normal("{choice} is surplus: {have} run, {need} wanted; drained within {limit}.", "need", "have", "limit"),
    "ReplicaOutdated": _normal("{choice} was made from an older spec ({have}, now {need}); drained within {limit}.",
                               "need", "have", "limit"),
    "ReplicaLeaving": _normal("{choice} leaves its node, which is being lost ({have} leave, {need} wanted); drained within {limit}.",
                              "need", "have", "limit"),
    "ReplicaResumed": _normal("{choice} is wanted again and stays: {need} wanted, {have} run; its drain of {limit} is undone.",
                              "need", "have", "limit"),
    "ReplicaEnded": _normal("{choice} is empty or failed and is removed: {have} running, {need} wanted, {limit} waited.",
                            "need", "have", "limit"),
    "ReplicaStuck": _warning("{choice} was not bound to its node within {limit} (waited {have}, {need} expected); it is replanned.",
                             "need", "have", "limit"),
    "ReplicaNotStarted": _warning("{choice} was bound and did not become ready within {limit} (waited {have}, {need} expected);"
                                  " it is replanned.", "need", "have", "limit"),
    "ReplicaBlocked": _warning("{choice} cannot start, {have} of {need} wanted are ready; its kubelet tries on, and it is replanned"
                               " after {limit}.", "need", "have", "limit"),
    "ReplicaHeldBack": _warning("{have} in a row did not start ({need} wanted); the next try comes {limit} after the last.",
                                "need", "have", "limit"),
    "ReplicaRefused": _warning("its pods are refused: {choice} ({have} in a row, {need} wanted; the next comes {limit} after the"
                               " last).", "need", "have", "limit"),
    "ReplicaLost": _warning("{choice} is lost: its node has been silent for {have}, limit {limit}; {need} replaced.",
                            "need", "have", "limit"),
    "NodesOrdered": _normal("orders {need} of pool {choice} ({gpus}, {cost}): the chosen mixes count on {have} beyond what exists;"
                            " {limit} more may be bought.", "need", "have", "limit", "gpus", "cost"),
    "NodesAwaited": _normal("{need} wait for {have} of pool {choice} on the way, the oldest ordered {limit} ago.",
                            "need", "have", "limit"),
    "NodeGivenBack": _normal("gives {choice} back ({need}, {cost}): it was ordered here and stood empty for {have}, longer than {limit}.",
                             "need", "have", "limit", "cost"),
    "NodesNotReady": _warning("{choice}: after {have} of {need} it is given up; the next order from its pool comes in {limit}"
                              " ({failures} in a row failed).", "need", "have", "limit", "failures"),
    "ProvisionerAbsent": _warning("{choice} ({need} needed, {have} served): nothing is bought until it is.", "need", "have"),
    "RoutesSet": _normal("traffic is split over {have} of {need} wanted, largest share {limit}.", "need", "have", "limit"),
    "SizesRouted": _normal("requests go by size (tokens of prompt + answer): {choice}; {need} of them are meant for other variants than"
                           " before, by a plan of {have} and {limit}.", "need", "have", "limit"),
    # restraint
    "MovesSpent": _normal("{choice} stays where it is: {have} of {limit} an hour have been made, the next may be in {need}.",
                          "need", "have", "limit"),
    "PodDisrupted": _normal("{choice}, within {have} of grace; {need} is to be replaced where there is room.", "need", "have"),
    "PodKept": _normal("{choice} keeps its pod where it is: {have} run, {need} are wanted.", "need", "have"),
    "PodGuarded": _normal("{choice} may not be evicted now: {have} of it are healthy, {need} must be, {limit} may be away and {ending}"
                          " are ending.", "need", "have", "limit", "ending"),
    "EvictionRefused": _normal("{choice} drained, may not be evicted after all and serves on: {have} may be away, {need} would be; {limit} are wanted.",
                               "need", "have", "limit"),
    "Held": _normal("dropped {choice} ({have} held, {need} planned).", "need", "have"),
    "Recommended": _normal("would be done in mode Auto: {choice} ({need} in all; {have} done).", "need", "have"),
    "MixWaits": _normal("{choice} would cost {have} less; it needs {need}, and {limit} may be made now.", "need", "have", "limit"),
    # place: rollouts of a revision
    "RolloutProgressing": _normal("revision {choice}: {have} of {need} are ready, {old} of another one still serve; at most {limit}"
                                  " are held beside what is wanted.", "need", "have", "limit", "old"),
    "RolloutComplete": _normal("revision {choice} is complete: {have} of {need} are ready, {limit} after it was asked for.",
                               "need", "have", "limit"),
    "RolloutMakesRoom": _normal("{choice} goes before its successor comes, as no GPU is free for one more; those that stay carry {have}"
                                " for a load of {need}; drained within {limit}.", "need", "have", "limit"),
    "RolloutBelowLoad": _warning("{choice} goes before its successor comes, as no GPU is free for one more: those that stay carry only"
                                 " {have} for a load of {need}; drained within {limit}.", "need", "have", "limit"),
    "RolloutWaiting": _warning("revision {choice} waits for room: {need} are needed on one node, the best has {have}, and what serves"
                               " last ({limit}) is not given up for it.", "need", "have", "limit"),
    "RolloutTimedOut": _warning("given up: {choice} was not ready {have} after it was bound, {limit} is the most; {ready} of {need} were."
                                " The revision before comes back; this one is not tried again.", "need", "have", "limit", "ready"),
    "RolloutFaulty": _warning("given up: {choice} does not run ({have} after it was bound, {limit} is the most, {starts}); {ready} of"
                              " {need} were ready. The revision before comes back; this one is not tried again.",
                              "need", "have", "limit", "ready", "starts"),
    "RolloutFailing": _warning("given up: {choice} is the last of several in a row that did not start ({have} waited, {limit} is the most);"
                               " {ready} of {need} were ready. The revision before comes back; this one is not tried again.",
                               "need", "have", "limit", "ready"),
    "RolloutRefused": _warning("given up: the pods of {choice} have been refused for {have}, {limit} is the most; {ready} of {need} were"
                               " ready. The revision before comes back; this one is not tried again.",
                               "need", "have", "limit", "ready"),
    "ReplicaRevoked": _normal("{choice} is of a revision that was given up and ends: {have} of it serve, {need} are wanted of the one before;"
                              " drained within {limit}.", "need", "have", "limit"),
    # train
    "GangStarted": _normal("starts on {choice}: {need} needed, {have} free in the island, best network {limit}.", "need", "have", "limit"),
    "GangWaiting": _warning("waits for {need} with {gpus} each on one network; the best island has {have} free of {limit}.",
                            "need", "have", "limit", "gpus"),
    "GangIndivisible": _warning("no number of nodes from {need} to {limit} divides a batch of {batch} and holds the model;"
                                " {have} are free in {choice}.", "need", "have", "limit", "batch"),
    "NodesReserved": _normal("{have} of {need} are kept in {choice} until all of its {limit} are free.", "need", "have", "limit"),
    "NodesReleased": _normal("{have} that were kept are given up.", "have"),
    "GangRestarted": _warning("attempt {need} restarts from a checkpoint of {have}; {lost} since then are lost ({limit} allowed).",
                              "need", "have", "limit", "lost"),
    "GangUnbound": _warning("attempt {need} was not bound on {choice} within {limit} (waited {have}); it is replanned.",
                            "need", "have", "limit"),
    "GangRefused": _warning("its pods are refused: {choice} ({have} in a row; attempt {need} comes {limit} after the last).",
                            "need", "have", "limit"),
    "WriteRefused": _warning("{choice} ({have} in a row, {need} done; the next comes {limit} after the last).",
                             "need", "have", "limit"),
    "GangBlocked": _warning("{choice}: {have} of {need} are up; the kubelet tries on, and the attempt is replanned after {limit}.",
                            "need", "have", "limit"),
    "GangHeldBack": _warning("{have} in a row made no progress; attempt {need} comes {limit} after the last.",
                             "need", "have", "limit"),
    "GangOutdated": _normal("attempt {have} goes on as it was started; what was changed since takes effect with attempt {need} (suspend and"
                            " resume the job to have that now, from a checkpoint of {limit}).", "need", "have", "limit"),
    "GangStopped": _normal("attempt {have} is stopped with {limit} grace; {need} were asked for.", "need", "have", "limit"),
    "GangDone": _normal("finished {have} of {need} after {limit}.", "need", "have", "limit"),
    "RestartLimitReached": _warning("not restarted: {have} failed, limit {limit}; {need} done.", "need", "have", "limit"),
    "CadenceSet": _normal("checkpoints every {have} (asked {need}, bounds up to {limit}).", "need", "have", "limit"),
    "PreemptedFor": _normal("gives way to {choice}: {have} against {need}, {limit} freed.", "need", "have", "limit"),
    # migration
    "MovedForRoom": _normal("moves to {choice} with {need} of context: {have} of room a request where it runs, {limit} are wanted,"
                            " {target} there.", "need", "have", "limit", "target"),
    # power
    "PowerGranted": _normal("granted {have} of {need} asked for by {count_nodes}; the domain may plan {limit}.",
                            "need", "have", "limit", "count_nodes"),
    "PowerClamped": _normal("clamped to {have} where {need} was asked for by {count_nodes}; the domain may plan {limit}.",
                            "need", "have", "limit", "count_nodes"),
    "PowerUnsafe": _warning("even the safe caps need {need}, the domain may plan {limit}; {have} are members; nothing above safe is granted.",
                            "need", "have", "limit"),
    "DomainInvalid": _warning("{choice}: {have} found, {need} expected; safe caps stay in force (limit {limit}).", "need", "have", "limit"),
    # dispatch
    "RoundRobin": _normal("{choice} had its turn of {have}.", "have"),
    "LeastMemory": _normal("{choice} had {have} of its KV cache used or asked for, the runner-up {need}.", "need", "have"),
    "SizePlanned": _normal("{choice} would be {have} full with a request of this size, the runner-up {need}.", "need", "have"),
    "MostFreeness": _normal("{choice} had {have} of room for each of its requests, the runner-up {need}.", "need", "have"),
    "LeastOutstanding": _normal("{choice} had {have} outstanding, the runner-up {need}.", "need", "have"),
    "HoldNoInstance": _normal("held: no instance is ready ({have} held, cap {limit}, {need} needed).", "need", "have", "limit"),
    "RejectCap": _warning("rejected: {have} are held, cap {limit}; retry in {need}.", "need", "have", "limit"),
    "RejectDeadline": _warning("rejected: waited {have}, deadline {limit}; {need} needed.", "need", "have", "limit"),
    "RejectTooLong": _warning("rejected: {need} wanted, no instance holds more than {limit} ({have} ready).", "need", "have", "limit"),
    # actor: what was dropped at act time
    "Stale": _normal("dropped {choice}: {need} expected, {have} found.", "need", "have"),
    "Taken": _normal("dropped {choice}: {need} needed, {have} still free.", "need", "have"),
    "NotOwner": _warning("dropped {choice}: not its field ({have} may set it, {need} asked).", "need", "have"),
    "Unsafe": _warning("dropped {choice}: {need} against a limit of {limit} ({have} now).", "need", "have", "limit"),
    "Expired": _normal("dropped {choice}: {have} old, deadline after {limit}.", "have", "limit"),
    "Unsupported": _normal("dropped {choice}: not among the {have} of action that this version carries out ({need} exist).", "need", "have"),
    # objects that cannot be acted on
    "SpecInvalid": _warning("{choice} ({have}, {need} allowed).", "need", "have"),
    "PolicyConfigInvalid": _warning("{choice}; the last good configuration stays in force ({have}, {need} allowed).", "need", "have"),
    "StateReset": _normal("{choice}: started from the initial state (schema {have}, wanted {need}).", "need", "have"),
    "ServiceNameTaken": _warning("Service {choice} is somebody else's ({have} of ours by that name, {need} wanted): delete or rename it.",
                                 "need", "have"),
    "NodeClosed": _normal("takes no new work: {choice} ({need} there, {have} in use).", "need", "have"),
    "DevicesDisagree": _warning("{choice} ({need} by the API server, {have} by the node).", "need", "have"),
    "NodeSilent": _warning("silent for {have}, limit {limit}; it gives no capacity, {need} are affected.", "need", "have", "limit"),
    "NodeUnknownProduct": _warning("reports GPU product {choice}, which no AcceleratorClass recognises ({have} there; {need} known).",
                                   "need", "have"),
    # remedies
    "AddCapacity": _normal("{need} more in {choice} would save {have}, unserved load at its price.", "need", "have"),
    "RelaxObjective": _normal("an objective of {need} would be met by {choice}.", "need"),
    "RaiseWorth": _normal("{choice} would serve all of it for {need}, and leaving the rest unserved is priced at {have}: a higher"
                          " unservedDollarsPerHour would have it served.", "need", "have"),
    "AllowSpot": _normal("a maxSpotShare above {have} would let {choice} serve more of it.", "have"),
    "FreeNodes": _normal("freeing {need} more in {choice} would let it start.", "need"),
}  # fmt: skip
