"""Case 49: the workers of a run take work from nobody else, and what listens, listens on loopback."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from distributed import Client
from distributed.comm import CommClosedError, connect
from distributed.security import Security

from locomass.executors import open_executor
from tests.cases.stranger import attack


@pytest.fixture(scope="module")
def executor():
    with open_executor(1) as executor:
        yield executor


def listening(pids: set[int]) -> list[str]:
    """Return the addresses on which these processes listen, by /proc: what `ss -ltn` shows."""
    inodes = set()
    for pid in pids:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}") as handle:
            for line in list(handle)[1:]:
                words = line.split()
                if words[3] == "0A" and words[9] in inodes:
                    found.append(words[1])
    return found


def test_everything_listens_on_loopback(executor):
    worker = set(executor.client.run(os.getpid).values())
    addresses = listening(worker | {os.getpid()})
    assert len(addresses) >= 4  # scheduler, dashboard, nanny, worker
    assert {a.split(":")[0] for a in addresses} == {"0100007F"}
    with urllib.request.urlopen(executor.dashboard, timeout=10) as page:  # where the log says it is
        assert page.status == 200


def test_a_client_without_credentials_is_refused(executor):
    address = executor.client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    strangers = [
        (address.replace("tls", "tcp"), None),
        (address, Security.temporary()),  # a certificate, but not that of the run
    ]
    for where, security in strangers:
        with pytest.raises((OSError, TimeoutError)):
            Client(where, timeout=3, security=security, set_as_default=False)
    assert executor.run(abs, [-1]) == [1]


@pytest.mark.parametrize("which", ["scheduler", "worker", "nanny"])
def test_no_port_answers_a_stranger(executor, which):
    info = executor.client.scheduler_info()
    address = {
        "scheduler": info["address"],
        "worker": next(iter(info["workers"])),
        "nanny": next(iter(info["workers"].values()))["nanny"],
    }[which]
    assert address.startswith("tls://127.0.0.1:")

    async def ask() -> object:
        comm = await connect(
            address, timeout=3, ssl_context=Security.temporary().get_connection_args("client")["ssl_context"]
        )
        try:
            await comm.write({"op": "identity", "reply": True})
            return await asyncio.wait_for(comm.read(), 3)
        finally:
            comm.abort()

    with pytest.raises((CommClosedError, OSError, TimeoutError)):
        asyncio.run(ask())


def test_another_process_of_the_machine_cannot_run_code(executor, tmp_path):
    """As the report of the fault did it: a program of its own, with Dask, that is told the address."""
    code = (
        "import sys\nfrom distributed import Client\n"
        "client = Client(sys.argv[1], timeout=3)\n"
        "client.submit(open, sys.argv[2], 'w').result(timeout=5)\n"
    )
    for protocol in ("tcp", "tls"):
        address = executor.client.scheduler.address.replace("tls", protocol)
        command = [sys.executable, "-c", code, address, str(tmp_path / "taken")]
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert done.returncode != 0
    assert not (tmp_path / "taken").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_of_the_machine_cannot_run_code(executor):
    """Neither by the ports, nor with what can be read of the run's processes and folders."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distributed", "tests.cases.stranger"])
    workers = list(executor.client.run(os.getpid).values())
    scratch = list(executor.client.run(lambda dask_worker: dask_worker.local_directory).values())
    trace = f"/tmp/taken-{os.getpid()}"
    words = ({"scheduler": executor.client.scheduler.address}, [os.getpid(), *workers], scratch, trace)
    process = context.Process(target=attack, args=words)
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert not Path(trace).exists()
    assert executor.run(abs, [-1]) == [1]
