from __future__ import annotations

import multiprocessing
import os
import socket

import pytest

from generators.errors import ToolkitError
from invert.evaluation.team import Team, WorkerLost


def _work(rank, port, results, script):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    results.put((rank, script(Team.from_environment())))


def talk(team):
    """Use everything that a team offers once; the leader fails in the middle."""

    def fail():
        raise ToolkitError("the leader's")

    shared = team.once(lambda: f"from {team.rank}")
    gathered = team.gather(team.rank)
    try:
        team.once(fail)
    except ToolkitError as error:
        failure = str(error)
    team.wait()
    return shared, gathered, failure, team.name


def die(team):
    """Let one of two end before the other talks to it."""
    if team.rank == 1:
        return "gone"
    try:
        team.once(lambda: None)
        team.wait()
    except WorkerLost:
        return "noticed"
    return "waited in vain"


def together(script):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_work, args=(rank, port, results, script)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    return found


def test_workers_share_what_the_leader_says_and_fails_at():
    found = together(talk)
    assert found[0] == ("from 0", [0, 1], "the leader's", "worker 1 of 2")
    assert found[1] == ("from 0", [0, 1], "the leader's", "worker 2 of 2")


def test_a_worker_that_is_gone_is_noticed():
    assert together(die) == {0: "noticed", 1: "gone"}


def test_one_process_needs_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team = Team.from_environment()
    team.wait()
    assert (team.once(lambda: 3), team.gather(4), team.leads) == (3, [4], True)
    with pytest.raises(ToolkitError):
        team.once(lambda: (_ for _ in ()).throw(ToolkitError("x")))
