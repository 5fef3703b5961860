from __future__ import annotations

import multiprocessing
import os
import socket
import sys

import pytest
import torch

from generators.errors import ToolkitError
from invert.evaluation.team import Team, WorkerLost, start_workers


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


def test_what_a_worker_left_is_there_when_it_is_gone():
    def script(team):
        team.leave(f"from {team.rank}, too early")
        team.leave(f"from {team.rank}")
        team.wait()
        return team.left()

    both = {0: "from 0", 1: "from 1"}
    assert together(script) == {0: both, 1: both}
    alone = Team()
    alone.leave("nobody reads this")
    assert alone.left() == {}


def test_whoever_is_free_is_dealt_the_next_piece_of_work():
    store = torch.distributed.HashStore()
    slow, fast = (Team(rank, 2, store=store).deal(7, "faces") for rank in range(2))
    assert next(slow) == 0
    assert list(fast) == [1, 2, 3, 4, 5, 6]
    assert list(slow) == []
    assert list(Team(0, 2, store=store).deal(2, "more faces")) == [0, 1]
    assert list(Team().deal(3, "faces")) == [0, 1, 2]


def test_work_goes_on_when_whoever_dealt_it_is_gone():
    class Store:
        numbers = iter((1, 2))

        def add(self, *_):
            for number in self.numbers:
                return number
            raise RuntimeError("connection reset by peer")

    first, second = (Team(rank, 2, store=Store()).deal(7, "faces") for rank in range(2))
    assert (next(first), next(second)) == (0, 1)
    assert list(first) == [2, 4, 6]
    assert list(second) == [3, 5]


def test_one_process_needs_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team = Team.from_environment()
    team.wait()
    assert (team.once(lambda: 3), team.gather(4), team.leads) == (3, [4], True)
    with pytest.raises(ToolkitError):
        team.once(lambda: (_ for _ in ()).throw(ToolkitError("x")))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"WORLD_SIZE": "many"}, "RANK=0, WORLD_SIZE=many, LOCAL_RANK=0: expected 0 <= RANK < WORLD_SIZE"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2, WORLD_SIZE=2, LOCAL_RANK=0: expected 0 <= RANK < WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, r"the workers cannot meet \(.*MASTER_ADDR.*\): torchrun sets .* unset them all to work alone"),
    ],
)
def test_variables_that_another_program_left_behind_are_told_in_words(given, words, set_launcher_variables):
    set_launcher_variables(given)
    with pytest.raises(ToolkitError, match=words):
        Team.from_environment()


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "code"), [(0, 1), (1, 3)])
def test_a_killed_worker_leaves_the_others_at_work_and_is_told_of_once(killed, code, capfd):
    script = (
        "import os, signal, sys, time; from invert.evaluation.team import Team, WorkerLost\n"
        "team = Team.from_environment()\n"
        f"if team.rank == {killed}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "try: team.wait()\n"
        "except WorkerLost as error: time.sleep(1); print('at work,', team.is_first_to_say(str(error)))\n"
        "sys.exit(3)\n"
    )
    told = []
    assert start_workers([sys.executable, "-c", script], 2, told.append) == code
    assert told == [
        f"worker {killed + 1} of 2 was ended by SIGKILL; what all of them measured is kept, and the same command goes on"
    ]
    assert capfd.readouterr().out == "at work, False\n"


@pytest.mark.slow
def test_nobody_waits_for_a_worker_that_never_came():
    script = (
        "import os, sys; from invert.evaluation.team import Team\n"
        "if os.environ['RANK'] == '1': sys.exit(2)\n"
        "Team.from_environment()\n"
    )
    assert start_workers([sys.executable, "-c", script], 2, print) == 1
